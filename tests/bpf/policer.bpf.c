// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Drives src/bpf/policer.h alone: a batch of packets at times of the test's choice, one bucket from
 * two CPUs at once, and the clocks. Nothing is attached; BPF_PROG_TEST_RUN runs each program.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* So many exchanges are lost: another CPU has charged the bucket a unit just before each. */
__u32 exchanges_to_lose;

static __always_inline __u64 exchange(__u64 *place, __u64 seen, __u64 next)
{
	if (exchanges_to_lose) {
		exchanges_to_lose--;
		*(volatile __u64 *)place += 1;
	}
	return __sync_val_compare_and_swap(place, seen, next);
}

/* In policer.h: it has no other way to lose one without a second CPU and much luck. */
#define __sync_val_compare_and_swap exchange
#include "policer.h"
#undef __sync_val_compare_and_swap

#define BATCH 8192
/* Decisions of one run of `hammer`. */
#define BLOWS 4096

struct arrival {
	__u64 now; /* units */
	__u32 bytes;
	__u32 verdict; /* enum verdict, written here */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

/* The whole batch is one value, so that one system call writes or reads it. */
struct batch {
	struct arrival arrivals[BATCH];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct batch);
} batches SEC(".maps");

/* What `hammer` was told, by verdict. */
struct tally {
	__u64 verdicts[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");

/* Of every packet of `hammer`. */
__u32 hammer_bytes;
/* The time that the CPUs of `hammer` share moves by so much with each of their packets. */
__u64 hammer_step;
__u64 hammer_now;

/* What read_clocks found; units_per_tick as policer_now takes it. */
__u64 units_per_tick;
__u64 coarse_now;
__u64 precise_now;

/* A global function is verified once, not once for every turn of the loop that calls it. */
__noinline int judge(__u32 at)
{
	__u32 zero = 0;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &zero);
	struct batch *batch = bpf_map_lookup_elem(&batches, &zero);
	struct arrival *arrival;

	if (!bucket || !batch || at >= BATCH)
		return 0;
	arrival = &batch->arrivals[at];
	arrival->verdict = police(bucket, arrival->bytes, arrival->now);
	return 0;
}

SEC("tc")
int judge_batch(struct __sk_buff *skb)
{
	(void)skb;
	for (__u32 at = 0; at < BATCH; at++)
		judge(at);
	return 0;
}

__noinline int strike(void)
{
	__u32 zero = 0;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &zero);
	struct tally *tally = bpf_map_lookup_elem(&tallies, &zero);
	__u64 now;

	if (!bucket || !tally)
		return 0;
	now = __sync_fetch_and_add(&hammer_now, hammer_step);
	switch (police(bucket, hammer_bytes, now)) {
	case CONFORMS:
		tally->verdicts[CONFORMS] += 1;
		break;
	case EXCEEDS:
		tally->verdicts[EXCEEDS] += 1;
		break;
	case CONTENDED:
		tally->verdicts[CONTENDED] += 1;
		break;
	}
	return 0;
}

SEC("tc")
int hammer(struct __sk_buff *skb)
{
	(void)skb;
	for (int blow = 0; blow < BLOWS; blow++)
		strike();
	return 0;
}

SEC("tc")
int read_clocks(struct __sk_buff *skb)
{
	(void)skb;
	coarse_now = policer_now(units_per_tick);
	precise_now = policer_now(0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
