// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* A link that loses one of so many packets, always the same ones. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define PASS_ON (-1)
#define DROP 2 /* TC_ACT_SHOT and TCX_DROP */

const volatile __u32 one_of = 25;

__u32 passed;
__u32 lost;

SEC("tc")
int lose(struct __sk_buff *skb)
{
	(void)skb;
	/* GSO packets are many to the wire, and one here. */
	if (__sync_fetch_and_add(&passed, 1) % one_of != one_of - 1)
		return PASS_ON;
	__sync_fetch_and_add(&lost, 1);
	return DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
