// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What stands around vlan_learning's programs in its tests. `watch` stands at the ingress of all far
 * ends, and of its interfaces behind its programs: it keeps what comes there, tags in the metadata too,
 * and drops it. `prepare` stands at the egress of the trunk's far end and puts tags into the metadata, as a
 * driver does whose device has taken them off: no socket can. `tag_client` and `untag_client` are a
 * client's VLAN devices.
 */
#include "parse.h"

/* Of a frame that is kept. */
#define MAX_KEPT_BYTES 2048
#define MAX_KEPT 4096
#define MAX_TALLIES (1 << 18)

struct kept {
	__u32 at; /* ifindex */
	__u32 length;
	__u16 tag_kind; /* of the tag in the metadata, in host byte order; 0: there is none */
	__u16 tci;
	__u32 packet_type;
	__u8 frame[MAX_KEPT_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, MAX_KEPT);
	__uint(value_size, sizeof(struct kept));
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kept);
} scratch SEC(".maps");

/* Where frames of a sender came, whether they are kept or not. */
struct flow {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__u32 at;       /* ifindex */
	__u16 tag_kind; /* as above */
	__u16 tci;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_TALLIES);
	__type(key, struct flow);
	__type(value, __u64); /* frames */
} tallies SEC(".maps");

__u32 keeps;
__u32 lost; /* frames that there was no room for */

struct tag {
	__u16 kind; /* in host byte order */
	__u16 tci;
};

struct tags {
	__u32 count;
	struct tag pushed[2]; /* the inner one first */
};
struct tags prepared;

/* A client's tags, and its port; the trunk's far end. */
struct tags client;
__u32 client_port;
__u32 far_trunk;

static __always_inline void tally(struct __sk_buff *skb)
{
	struct flow flow = { .at = skb->ifindex };
	__u64 one = 1, *count;

	if (skb->vlan_present) {
		flow.tag_kind = bpf_ntohs(skb->vlan_proto);
		flow.tci = skb->vlan_tci;
	}
	if (bpf_skb_load_bytes(skb, 0, &flow, 2 * ETH_ALEN))
		return;
	count = bpf_map_lookup_elem(&tallies, &flow);
	if (!count && !bpf_map_update_elem(&tallies, &flow, &one, BPF_NOEXIST))
		return;
	count = bpf_map_lookup_elem(&tallies, &flow);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		__sync_fetch_and_add(&lost, 1);
}

SEC("tc")
int watch(struct __sk_buff *skb)
{
	__u32 zero = 0, length = skb->len, last;
	struct kept *kept = bpf_map_lookup_elem(&scratch, &zero);

	tally(skb);
	if (!kept || !keeps)
		return DROP;
	kept->at = skb->ifindex;
	kept->length = length;
	kept->tag_kind = skb->vlan_present ? bpf_ntohs(skb->vlan_proto) : 0;
	kept->tci = skb->vlan_present ? skb->vlan_tci : 0;
	kept->packet_type = skb->pkt_type;
	if (length > MAX_KEPT_BYTES)
		length = MAX_KEPT_BYTES;
	last = length - 1;
	/* Kernel 6.1 does not conclude from "not 0" that it is 1 at least, but from this that last + 1 is. */
	asm volatile("" : "+r"(last));
	if (last >= MAX_KEPT_BYTES || bpf_skb_load_bytes(skb, 0, kept->frame, last + 1) ||
	    bpf_map_push_elem(&queue, kept, 0))
		__sync_fetch_and_add(&lost, 1);
	return DROP;
}

static __always_inline long push(struct __sk_buff *skb, struct tags *tags)
{
	long error = 0;

	if (tags->count > 0)
		error = bpf_skb_vlan_push(skb, bpf_htons(tags->pushed[0].kind),
					  tags->pushed[0].tci);
	if (!error && tags->count > 1)
		error = bpf_skb_vlan_push(skb, bpf_htons(tags->pushed[1].kind),
					  tags->pushed[1].tci);
	return error;
}

SEC("tc")
int prepare(struct __sk_buff *skb)
{
	if (!push(skb, &prepared))
		return PASS_ON;
	__sync_fetch_and_add(&lost, 1);
	return DROP;
}

SEC("tc")
int tag_client(struct __sk_buff *skb)
{
	if (push(skb, &client))
		return DROP;
	return bpf_redirect(far_trunk, 0);
}

SEC("tc")
int untag_client(struct __sk_buff *skb)
{
	struct tag *outer = &client.pushed[client.count > 1];

	if (!skb->vlan_present || (skb->vlan_tci & 0xfff) != (outer->tci & 0xfff))
		return DROP;
	bpf_skb_vlan_pop(skb);
	if (client.count > 1)
		bpf_skb_vlan_pop(skb);
	return bpf_redirect(client_port, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
