// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Runs another program on a packet that ends where a capture has cut it: from 6.17 on BPF_PROG_TEST_RUN
 * refuses frames that say IP and end before an IP header would, so they come filled up and are cut here.
 *
 * It is attached nowhere.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* What no tc program returns. */
#define NOT_CUT (-100)
#define NOT_RUN (-101)

/* Word of skb->cb, which user space can set: bytes that the packet is cut to; 0: as it is. */
#define LENGTH 0

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

SEC("tc")
int cut_and_run(struct __sk_buff *skb)
{
	if (skb->cb[LENGTH] && bpf_skb_change_tail(skb, skb->cb[LENGTH], 0))
		return NOT_CUT;
	bpf_tail_call(skb, &target, 0);
	return NOT_RUN;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
