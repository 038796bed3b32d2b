/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Headers of tunnels, and what the link and network headers of either layer say: the same parser reads
 * the packet outside and the packet inside. Parsers move the cursor past one header and return what
 * comes next, or PARSE_FAILED, as those of parse.h do.
 */
#ifndef NETBPF_TUNNEL_H
#define NETBPF_TUNNEL_H

#include "parse.h"

/* Every tunnel is named by the UDP port or IP protocol that it comes by. IPPROTO_IPIP (4), IPPROTO_IPV6
 * (41), IPPROTO_GRE (47) and IPPROTO_UDP are in linux/in.h. */
#define GENEVE_PORT 6081 /* RFC 8926, 3.3 */
#define VXLAN_PORT 4789  /* RFC 7348, 8; where no others are named */

enum encap {
	VXLAN,
	GENEVE,
	GRE,
	NVGRE,
	IPIP,
	SIT,
};

/* RFC 7348, 5. */
struct vxlan_header {
	__u8 flags;
	__u8 reserved[3];
	__be32 vni; /* 24 bits, and 8 reserved */
};
#define VXLAN_HAS_VNI 0x08

/* RFC 8926, 3.4. */
struct geneve_header {
	__u8 version_and_length; /* 2 bits; 6 bits: options in units of 4 bytes */
	__u8 flags;
	__be16 protocol;
	__be32 vni; /* 24 bits, and 8 reserved */
};

/* RFC 2784 and 2890; checksum, key and sequence number follow, 4 bytes each. */
struct gre_header {
	__be16 flags;
	__be16 protocol;
};
#define GRE_HAS_CHECKSUM 0x8000
#define GRE_HAS_KEY 0x2000
#define GRE_HAS_SEQUENCE 0x1000
#define GRE_VERSION 0x0007
/* Bits that are refused unless one knows RFC 1701, whose routing they are: RFC 2784, 2.3. */
#define GRE_REFUSED 0x4c00

/* What a tunnel's header says. */
struct tunnel {
	enum encap encap;
	__u32 vni;
	__be16 protocol; /* EtherType of what is inside, ETH_P_TEB for an Ethernet frame */
};

/* What the link and network headers of one layer say. Offsets count from the start of the packet. */
struct layer {
	__u8 ip_version;        /* 4, 6, or 0: not IP */
	__u16 tag_bytes;        /* inline tags; a tag in the metadata is not part of the packet */
	__u32 network;          /* offset of the IP header */
	__u32 end;              /* of the IP packet: what lies behind it is padding, not headers */
	int next;               /* IPv4 protocol, IPv6 next header */
	enum fragment fragment; /* of IPv4; an IPv6 packet says so in an extension header */
};

/* Passes the headers of one layer, outer or inner. `protocol` is what the layer begins with: ETH_P_TEB,
 * an Ethernet header; else no link header, and the EtherType is known from elsewhere. The layer ends at
 * `end`, or earlier where its IP header says so. Returns 0, or PARSE_FAILED for what ends too early or says
 * of itself to be IP and is not. */
static __always_inline int parse_layer(struct __sk_buff *skb, struct cursor *cur, int protocol,
				       __u32 end, struct layer *layer)
{
	struct iphdr *ip4;
	struct ipv6hdr *ip6;
	__u32 length; /* 0 in packets of more than 64 KB (RFC 2675; Linux has that for GSO in IPv4 too) */

	*layer = (struct layer){ .end = end };
	if (protocol == bpf_htons(ETH_P_TEB)) {
		protocol = parse_link(skb, cur, LINK_ETHERNET, &layer->tag_bytes);
		if (protocol == PARSE_FAILED)
			return PARSE_FAILED;
	}
	layer->network = cur->offset;
	if (protocol == bpf_htons(ETH_P_IP)) {
		layer->next = parse_ipv4(cur, &ip4);
		if (layer->next == PARSE_FAILED)
			return PARSE_FAILED;
		layer->ip_version = 4;
		if (ip4->frag_off & bpf_htons(0x1fff))
			layer->fragment = LATER_FRAGMENT;
		else if (ip4->frag_off & bpf_htons(0x2000))
			layer->fragment = FIRST_FRAGMENT;
		length = bpf_ntohs(ip4->tot_len);
		if (length && layer->network + length < end)
			layer->end = layer->network + length;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		layer->next = parse_ipv6(cur, &ip6);
		if (layer->next == PARSE_FAILED)
			return PARSE_FAILED;
		layer->ip_version = 6;
		length = bpf_ntohs(ip6->payload_len);
		if (length && cur->offset + length < end)
			layer->end = cur->offset + length;
	}
	return cur->offset > layer->end ? PARSE_FAILED : 0;
}

/* Passes a UDP header. Returns 0. What lies behind the datagram is not headers either. */
static __always_inline int parse_udp(struct cursor *cur, __u32 *end)
{
	struct udphdr *udp = cur->pos;
	__u32 length; /* 0, where it has more than 64 KB */

	if ((void *)(udp + 1) > cur->end)
		return PARSE_FAILED;
	length = bpf_ntohs(udp->len);
	if (length && cur->offset + length < *end)
		*end = cur->offset + length;
	advance(cur, sizeof(*udp));
	return 0;
}

/* Returns 0. */
static __always_inline int parse_vxlan(struct cursor *cur, struct tunnel *tunnel)
{
	struct vxlan_header *vxlan = cur->pos;

	if ((void *)(vxlan + 1) > cur->end || !(vxlan->flags & VXLAN_HAS_VNI))
		return PARSE_FAILED;
	tunnel->encap = VXLAN;
	tunnel->vni = bpf_ntohl(vxlan->vni) >> 8;
	tunnel->protocol = bpf_htons(ETH_P_TEB);
	advance(cur, sizeof(*vxlan));
	return 0;
}

/* Returns 0. Options are passed, not looked at. */
static __always_inline int parse_geneve(struct cursor *cur, struct tunnel *tunnel)
{
	struct geneve_header *geneve = cur->pos;

	if ((void *)(geneve + 1) > cur->end || geneve->version_and_length >> 6)
		return PARSE_FAILED;
	tunnel->encap = GENEVE;
	tunnel->vni = bpf_ntohl(geneve->vni) >> 8;
	tunnel->protocol = geneve->protocol;
	advance(cur, sizeof(*geneve) + (geneve->version_and_length & 0x3f) * 4);
	return 0;
}

/* Returns 0. Version 1 is PPTP's (RFC 2637), which is none of ours: ask before. */
static __always_inline int parse_gre(struct cursor *cur, struct tunnel *tunnel, bool knows_nvgre)
{
	struct gre_header *gre = cur->pos;
	__be32 *key;
	__u32 flags;

	if ((void *)(gre + 1) > cur->end)
		return PARSE_FAILED;
	flags = bpf_ntohs(gre->flags);
	if (flags & GRE_REFUSED)
		return PARSE_FAILED;
	tunnel->encap = GRE;
	tunnel->vni = 0;
	tunnel->protocol = gre->protocol;
	advance(cur, sizeof(*gre));
	if (flags & GRE_HAS_CHECKSUM)
		advance(cur, 4);
	if (flags & GRE_HAS_KEY) {
		key = cur->pos;
		if ((void *)(key + 1) > cur->end)
			return PARSE_FAILED;
		tunnel->vni = bpf_ntohl(*key);
		advance(cur, 4);
	}
	if (flags & GRE_HAS_SEQUENCE)
		advance(cur, 4);
	/* RFC 7637, 3.2: neither checksum nor sequence number, and an Ethernet frame inside. */
	if (knows_nvgre && tunnel->protocol == bpf_htons(ETH_P_TEB) &&
	    (flags & (GRE_HAS_CHECKSUM | GRE_HAS_KEY | GRE_HAS_SEQUENCE)) == GRE_HAS_KEY) {
		tunnel->encap = NVGRE;
		tunnel->vni >>= 8; /* the rest tells flows apart */
	}
	return 0;
}

#endif
