// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What VLAN devices would do for the clients of vlan_learning's simulation, on kernels without them:
 * `tag_client` stands at the ingress of each client's port, tags what the client sends and redirects it
 * to the far end of the trunk; `untag_trunk` stands at the ingress of that end and brings what comes back
 * to the client of its VLAN, without the tag. What belongs to no client is dropped.
 */
#include "parse.h"

/* All VLANs that there are. */
#define MAX_VLANS 4094

/* ifindex of the trunk's far end. */
const volatile __u32 far_trunk;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VLANS);
	__type(key, __u32); /* ifindex of a client's port */
	__type(value, __u32);
} vlan_of_port SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VLANS);
	__type(key, __u32);
	__type(value, __u32); /* ifindex of a client's port */
} port_of_vlan SEC(".maps");

SEC("tc")
int tag_client(struct __sk_buff *skb)
{
	__u32 port = skb->ifindex;
	__u32 *vlan = bpf_map_lookup_elem(&vlan_of_port, &port);

	if (!vlan || bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), *vlan))
		return DROP;
	return bpf_redirect(far_trunk, 0);
}

SEC("tc")
int untag_trunk(struct __sk_buff *skb)
{
	__u32 vlan = skb->vlan_tci & 0xfff; /* the rest is priority */
	__u32 *port = bpf_map_lookup_elem(&port_of_vlan, &vlan);

	if (!skb->vlan_present || !port || bpf_skb_vlan_pop(skb))
		return DROP;
	return bpf_redirect(*port, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
