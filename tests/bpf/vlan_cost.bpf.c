// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Runs a program of vlan_learning again and again under BPF_PROG_TEST_RUN, which knows no tags: each of
 * these leaves the packet as it was, so that the next run finds the same.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN 5

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

/* A tail call takes the place of this frame only, so it comes back to the caller. */
static __noinline int run_target(struct __sk_buff *skb)
{
	int verdict = -100;

	bpf_tail_call(skb, &target, 0);
	asm volatile("" : "+r"(verdict));
	return verdict;
}

/* For a target that takes the tag off. */
SEC("tc")
int tagged_before(struct __sk_buff *skb)
{
	bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), VLAN);
	return run_target(skb);
}

/* For a target that puts a tag on. */
SEC("tc")
int untagged_after(struct __sk_buff *skb)
{
	int verdict = run_target(skb);

	bpf_skb_vlan_pop(skb);
	return verdict;
}

/* For a target that does nothing, so many times a tag on and off. */
SEC("tc")
int tagged_once(struct __sk_buff *skb)
{
	bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), VLAN);
	bpf_skb_vlan_pop(skb);
	return run_target(skb);
}

SEC("tc")
int tagged_twice(struct __sk_buff *skb)
{
	bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), VLAN);
	bpf_skb_vlan_pop(skb);
	bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), VLAN);
	bpf_skb_vlan_pop(skb);
	return run_target(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
