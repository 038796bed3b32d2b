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
	__u32 prefix_bits; /* those of ip_version too, so that no network has addresses of both */
	__u32 ip_version;
	__be32 ip[4]; /* IPv4: the first word */
};
#define VERSION_BITS 32

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
	struct net net = { .ip_version = packet->ip_version };

	if (packet->ip_version == 4) {
		net.prefix_bits = VERSION_BITS + 32;
		net.ip[0] = ip->in6_u.u6_addr32[0];
	} else if (packet->ip_version == 6) {
		net.prefix_bits = VERSION_BITS + 128;
		__builtin_memcpy(net.ip, ip, sizeof(net.ip));
	} else {
		return false;
	}
	return bpf_map_lookup_elem(nets, &net);
}

#endif
