/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A policer in one word: the generic cell rate algorithm (ITU-T I.371, its virtual scheduling form).
 * A bucket is the time at which all that has passed will have been paid for at the rate. A packet
 * passes if that time, its own cost added, is not more than the burst ahead of now; a packet that is
 * larger than the whole burst passes when everything is paid for, and is charged in full.
 *
 * One compare-and-exchange, no lock, no debt: exact on any number of CPUs. When MAX_ATTEMPTS
 * exchanges in a row are lost to other CPUs the packet is dropped; its tokens stay in the bucket.
 *
 * Times are in units of 1/16 ns, so that a byte at 100 Gbit/s still costs more than one of them;
 * 2^63 units are 18 years, and compares are signed, so neither boot nor wrap-around matters.
 */
#ifndef NETBPF_POLICER_H
#define NETBPF_POLICER_H

#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define UNITS_PER_NS 16
#define COST_SHIFT 10
#define MAX_ATTEMPTS 16

/* A cache line each: buckets are written by all CPUs. Rate and burst stand beside the time that they
 * apply to, as policer.rs makes them, written before the first packet. The pointer to a bucket has to
 * come from a map look-up; of an indexed global array the verifier refuses the loop. */
struct bucket {
	__u64 paid_until; /* units */
	__u64 cost;       /* units << COST_SHIFT per byte, rounded up; 0: not limited */
	__u64 burst;      /* units that it takes to send the burst at the rate */
	__u64 padding[5];
};

enum verdict {
	CONFORMS,
	EXCEEDS,
	CONTENDED,
};

/* The kernel's tick counter costs a load where bpf_ktime_get_ns costs 27 ns and the coarse clock 4.
 * It is coarse as well (4 ms at HZ=250): user space sets units_per_tick where the burst lasts many
 * ticks, and leaves it 0, the precise clock, elsewhere. Both follow CLOCK_MONOTONIC. */
static __always_inline __u64 policer_now(__u64 units_per_tick)
{
	if (units_per_tick)
		return bpf_jiffies64() * units_per_tick;
	return bpf_ktime_get_ns() * UNITS_PER_NS;
}

/* Units << COST_SHIFT per byte, as units. The largest packet, 512 KiB of BIG TCP, at the lowest rate, 8 bit/s: just
 * below 2^63. */
static __always_inline __u64 cost_of(__u32 bytes, __u64 cost_per_byte)
{
	return (bytes * cost_per_byte + (1 << COST_SHIFT) - 1) >> COST_SHIFT;
}

/* From when on a packet of now is paid. */
static __always_inline __u64 paid_from(__u64 paid_until, __u64 now)
{
	return (__s64)(paid_until - now) > 0 ? paid_until : now;
}

/* The rule alone, for buckets that share their rate: `paid_until` is one of theirs. */
static __always_inline enum verdict police_at(__u64 *paid_until, __u64 cost_per_byte, __u64 burst,
					      __u32 bytes, __u64 now)
{
	__u64 cost = cost_of(bytes, cost_per_byte);
	__u64 weight = cost < burst ? cost : burst;

	for (int i = 0; i < MAX_ATTEMPTS; i++) {
		__u64 seen = *(volatile __u64 *)paid_until;
		__u64 from = paid_from(seen, now);

		if (from - now + weight > burst)
			return EXCEEDS;
		if (__sync_val_compare_and_swap(paid_until, seen, from + cost) == seen)
			return CONFORMS;
	}
	return CONTENDED;
}

/* What police_at looks at, for those who ask why: by how much a packet exceeds the burst, in units; 0 and less:
 * so much room it leaves. */
static __always_inline __s64 beyond_burst(__u64 paid_until, __u64 cost_per_byte, __u64 burst,
					  __u32 bytes, __u64 now)
{
	__u64 cost = cost_of(bytes, cost_per_byte);
	__u64 weight = cost < burst ? cost : burst;

	return paid_from(paid_until, now) - now + weight - burst;
}

static __always_inline enum verdict police(struct bucket *bucket, __u32 bytes, __u64 now)
{
	if (!bucket->cost)
		return CONFORMS;
	return police_at(&bucket->paid_until, bucket->cost, bucket->burst, bytes, now);
}

#endif
