// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* A link that loses packets: one of so many, always the same ones, and as many as a test wants lost now. It
 * stands at the ingress of the interface that they would have reached. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define PASS_ON (-1)
#define DROP 2 /* TC_ACT_SHOT and TCX_DROP */

/* 0: none is lost but those that are to be. */
const volatile __u32 one_of = 25;

__u32 to_lose; /* of those that come next; the test writes it */
__u32 passed;
__u32 lost;

/* Whether this one is to be lost. Two CPUs do not count it twice. */
static __always_inline int is_wanted_lost(void)
{
	__u32 left = *(volatile __u32 *)&to_lose;

	return left && __sync_val_compare_and_swap(&to_lose, left, left - 1) == left;
}

SEC("tc")
int lose(struct __sk_buff *skb)
{
	(void)skb;
	/* GSO packets are many to the wire, and one here. */
	if (!is_wanted_lost() &&
	    (!one_of || __sync_fetch_and_add(&passed, 1) % one_of != one_of - 1))
		return PASS_ON;
	__sync_fetch_and_add(&lost, 1);
	return DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
