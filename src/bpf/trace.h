/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Why a packet was let go or dropped, told to user space packet by packet (src/trace.rs, src/explain.rs).
 * Whether that is wanted is a constant of each program: where it is not, the verifier leaves all of this
 * out, the maps are not made, and a packet costs what it did.
 *
 * Whatever is left out is counted, for each interface: of `seen` packets as many were told of as are not
 * in one of the other counts.
 */
#ifndef NETBPF_TRACE_H
#define NETBPF_TRACE_H

#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "policer.h"

/* Bytes of a packet that are told: the headers of all but the oddest. */
#define TRACE_SNAP 256

enum tracing {
	TRACE_NOTHING,
	TRACE_DROPS, /* what is dropped, or would be without --dry-run */
	TRACE_ALL,   /* every packet, without any limit: captures that are explained */
};

enum trace_verdict {
	TRACE_PASSED,
	TRACE_DROPPED,
	TRACE_WOULD_DROP, /* --dry-run */
};

/* What a verdict stands on, as the program found it. What reason, detail and figure mean is each tool's. */
struct ground {
	__u8 verdict; /* enum trace_verdict */
	__u8 reason;
	__u8 flags;
	__u8 zero;
	__u32 detail;
	__s64 figure;
};

struct trace_record {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	struct ground ground;
	__u32 ifindex;
	__u32 length;   /* of the packet, without a tag in the metadata */
	__u32 captured; /* of the bytes below */
	__u16 tag;      /* in the metadata; protocol 0: there is none */
	__be16 tag_protocol;
	__u8 bytes[TRACE_SNAP];
};
/* As src/ground.rs reads it. */
_Static_assert(sizeof(struct ground) == 16, "no padding");
_Static_assert(sizeof(struct trace_record) == 40 + TRACE_SNAP, "no padding");

struct trace_counts {
	__u64 seen;
	__u64 not_sampled;
	__u64 above_rate;
	__u64 no_room; /* in the ring buffer: user space did not keep up */
};

/* One for all CPUs, so that records are in order. User space says how large. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} trace_records SEC(".maps");

/* By interface; user space enters those that the program is attached to. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_counts);
} trace_counts SEC(".maps");

/* What is told in a second at most, as a policer of which a record is one byte. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bucket);
} trace_limit SEC(".maps");

/* Is this one of those that are to be told? `one_in` so many of each CPU; 0 and 1: each. */
static __always_inline bool is_to_be_told(struct trace_counts *counts, __u32 one_in, __u64 now)
{
	struct bucket *limit;
	__u32 zero = 0;

	if (one_in > 1 && counts->seen % one_in) {
		counts->seen += 1;
		counts->not_sampled += 1;
		return false;
	}
	counts->seen += 1;
	limit = bpf_map_lookup_elem(&trace_limit, &zero);
	if (limit && police(limit, 1, now * UNITS_PER_NS) != CONFORMS) {
		counts->above_rate += 1;
		return false;
	}
	return true;
}

/* Tells of one packet. Apart from the caller, whose registers it has no use for. */
static __noinline int trace(struct __sk_buff *skb, const struct ground *ground, __u32 tracing,
			    __u32 one_in)
{
	struct trace_counts *counts = NULL;
	__u32 ifindex = skb->ifindex, bytes;
	__u64 now = bpf_ktime_get_ns();
	struct trace_record *record;

	if (!ground)
		return 0;
	if (tracing != TRACE_ALL) {
		counts = bpf_map_lookup_elem(&trace_counts, &ifindex);
		if (!counts || !is_to_be_told(counts, one_in, now))
			return 0;
	}
	record = bpf_ringbuf_reserve(&trace_records, sizeof(*record), 0);
	if (!record) {
		if (counts)
			counts->no_room += 1;
		return 0;
	}
	record->time = now;
	record->ground = *ground;
	record->ifindex = ifindex;
	record->length = skb->len;
	record->tag = skb->vlan_present ? skb->vlan_tci : 0;
	record->tag_protocol = skb->vlan_present ? skb->vlan_proto : 0;
	/* In one register from here on, so that the verifier sees the bounds of what is passed. */
	bytes = skb->len;
	asm volatile("" : "+r"(bytes));
	record->captured = 0;
	if (bytes > TRACE_SNAP)
		bytes = TRACE_SNAP;
	if (bytes && !bpf_skb_load_bytes(skb, 0, record->bytes, bytes))
		record->captured = bytes;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

#endif
