// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Runs another program with the tag of the caller's choice and tells the tag that it left:
 * BPF_PROG_TEST_RUN neither takes skb->tc_index nor gives it back, but does so with skb->cb. From 6.17
 * on it also refuses frames that say IP and end before an IP header would; so they are cut here.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* What no tc program returns. */
#define NO_TARGET (-100)
#define NOT_CUT (-101)

/* Words of skb->cb. */
#define TAG 0
#define TARGET 1
#define LENGTH 2 /* bytes that the packet is cut to; 0: as it is. This ends GSO. */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} targets SEC(".maps");

/* A tail call takes the place of this frame only, so it comes back to the caller. */
static __noinline int run_target(struct __sk_buff *skb)
{
	int verdict = NO_TARGET;

	bpf_tail_call(skb, &targets, skb->cb[TARGET]);
	asm volatile("" : "+r"(verdict)); /* or the caller would take it for the only value */
	return verdict;
}

SEC("tc")
int tagged(struct __sk_buff *skb)
{
	int verdict;

	if (skb->cb[LENGTH] && bpf_skb_change_tail(skb, skb->cb[LENGTH], 0))
		return NOT_CUT;
	skb->tc_index = skb->cb[TAG];
	verdict = run_target(skb);
	skb->cb[TAG] = skb->tc_index;
	return verdict;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
