// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Puts a client into a VLAN, on any kernel: `tag` stands at the ingress of the client's port at a switch,
 * `untag` at its egress. What belongs to other VLANs is dropped there, as a switch does.
 */
#include "parse.h"

/* Changed while the client talks. Network byte order in `protocol`; an inner id of 0 is no inner tag. */
struct place {
	__be16 protocol;
	__u16 outer;
	__u16 inner;
};
struct place place = { .protocol = bpf_htons(ETH_P_8021Q), .outer = 1 };

#define VLAN_ID 0xfff

SEC("tc")
int tag(struct __sk_buff *skb)
{
	__u16 inner = *(volatile __u16 *)&place.inner;

	if (inner && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), inner))
		return DROP;
	if (bpf_skb_vlan_push(skb, place.protocol, *(volatile __u16 *)&place.outer))
		return DROP;
	return PASS_ON;
}

SEC("tc")
int untag(struct __sk_buff *skb)
{
	__u16 inner = *(volatile __u16 *)&place.inner;

	if (!skb->vlan_present || (skb->vlan_tci & VLAN_ID) != *(volatile __u16 *)&place.outer ||
	    skb->vlan_proto != place.protocol || bpf_skb_vlan_pop(skb))
		return DROP;
	/* The inner tag has moved up. */
	if (!inner)
		return skb->vlan_present ? DROP : PASS_ON;
	if (!skb->vlan_present || (skb->vlan_tci & VLAN_ID) != inner || bpf_skb_vlan_pop(skb))
		return DROP;
	return PASS_ON;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
