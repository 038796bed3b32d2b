// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Finds flows of the token bucket's table, each time another one, as packets of many sources would; for
 * `make bench`, because a test run repeats one packet. Twice, so that what the loop costs can be taken
 * off.
 */
#include "../../src/bpf/tokenbucket.bpf.c"

/* Keys of one run. */
#define KEYS 1024

/* Sources 0 to flows - 1, in the first word of the address, send. */
/* Not 0: in .data, beside what else user space changes. */
__u32 flows = 1;
__u32 state = 1;
__u64 found = 1;

static __always_inline void next_key(struct wide_flow_key *key)
{
	state = state * 1664525 + 1013904223;
	key->address[0] = ((__u64)state * flows) >> 32;
}

SEC("tc")
int find_many(struct __sk_buff *skb)
{
	struct wide_flow_key key = { .ether_type = bpf_htons(ETH_P_IP) };

	(void)skb;
	for (int i = 0; i < KEYS; i++) {
		next_key(&key);
		if (find(&key))
			found++;
	}
	return 0;
}

SEC("tc")
int find_none(struct __sk_buff *skb)
{
	struct wide_flow_key key = { .ether_type = bpf_htons(ETH_P_IP) };

	(void)skb;
	for (int i = 0; i < KEYS; i++) {
		next_key(&key);
		if (key.address[0] != flows)
			found++;
	}
	return 0;
}
