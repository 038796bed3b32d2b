// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Drives src/bpf/xfsm.h alone: a batch of packets of many flows, at times of the test's choice, through
 * a machine of the test's choice. Nothing is attached; BPF_PROG_TEST_RUN runs the program.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "xfsm.h"

#define BATCH 4096
#define FLOWS 64

struct arrival {
	__u64 now; /* ns */
	__u32 flow;
	__u32 packets;
	__s32 protocol;
	__s32 port;
	__s32 length;
	__u32 action; /* enum action, written here */
};

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

struct flow {
	__u64 word;
	__u64 known; /* 0: the word says nothing yet */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWS);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

/* Not constant here, so that a program has to be loaded only once for many machines. */
struct machine machine;
struct figures figures;

/* A global function is verified once, not once for every turn of the loop that calls it. */
__noinline int judge(__u32 at)
{
	struct arrival *arrival;
	struct batch *batch;
	struct facts facts;
	struct flow *flow;
	struct step step;
	__u32 zero = 0;

	batch = bpf_map_lookup_elem(&batches, &zero);
	if (!batch || at >= BATCH)
		return 0;
	arrival = &batch->arrivals[at];
	flow = bpf_map_lookup_elem(&flows, &arrival->flow);
	if (!flow)
		return 0;
	facts.now = arrival->now;
	facts.packets = arrival->packets;
	facts.protocol = arrival->protocol;
	facts.port = arrival->port;
	facts.length = arrival->length;
	if (!flow->known)
		flow->word = fresh_word(&machine, &figures, facts.now);
	step = step_of(&machine, &figures, flow->word, &facts);
	flow->known |= step.word != flow->word;
	flow->word = step.word;
	arrival->action = step.action;
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

char LICENSE[] SEC("license") = "Dual BSD/GPL";
