/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Packet parsing for tc programs: a cursor runs over the linear part of the packet, each parser
 * moves it past one header and returns what comes next, or PARSE_FAILED. The bounds check stands
 * beside each access. What a packet is and how many bytes it has on the wire is said here, once.
 */
#ifndef NETBPF_PARSE_H
#define NETBPF_PARSE_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* "Not ours, let it go on": TCX_NEXT and TC_ACT_UNSPEC are the same number, so that one program
 * serves both ways of attaching. Debian 12's linux/bpf.h has no TCX constants. */
#define PASS_ON (-1)
/* TC_ACT_SHOT and TCX_DROP. */
#define DROP 2

#define PARSE_FAILED (-1)

/* An outer and an inner tag (802.1ad); more are not customary and end the parse as "not IP". */
#define MAX_INLINE_TAGS 2
/* IPv6 chains of more extension headers are not followed; RFC 8504, 5.3 lets a node set a limit. */
#define MAX_EXTENSIONS 8
/* Ethernet, two tags and the fixed IPv6 header. TCP's GSO packets come with 54 linear bytes or more,
 * mostly 66, so that this pulls next to never. */
#define NETWORK_HEADERS 62
/* Extension headers and transport header of all but the oddest packets. */
#define TRANSPORT_HEADERS 256

/* Control traffic is small: an RA with six prefixes, an MLD report of 20 groups. */
#define CONTROL_AT_MOST 512

/* Where a packet starts on this interface; decided by the interface's type when attaching. */
enum link_layer {
	LINK_ETHERNET,
	LINK_RAW, /* ppp, wg, tun, ipip …: the IP header is first, skb->protocol says which */
};

/* The offset is kept beside the pointer, so that nobody has to subtract packet pointers. */
struct cursor {
	void *pos;
	void *end;
	__u32 offset;
};

struct vlan_tag {
	__be16 tci;
	__be16 inner_proto;
};

/* ARP for IPv4 over Ethernet (RFC 826), up to the sender's address. */
struct arp_ipv4 {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be16 sender_ip[2]; /* not aligned to four bytes */
};

/* The first eight bytes of an IPv6 extension header, as far as all of them agree. */
struct extension {
	__u8 next;
	__u8 length; /* units and offset differ: see parse_extensions */
	__be16 rest;
	__be32 more;
};

/* What the link and network headers say; copied, because pulling or changing the packet voids every
 * pointer into it. Offsets count from the start of the packet. */
struct packet {
	__be16 protocol; /* EtherType behind all tags */
	__u16 tag_bytes; /* inline tags; a tag in the metadata is not part of the packet */
	__u16 network;   /* offset of the IP header */
	__u8 ip_version; /* 4, 6, or 0: not IP */
	__u8 next;       /* IPv4 protocol, or IPv6 next header as the fixed header has it */
	__u8 hop_limit;  /* IPv4: TTL */
	struct in6_addr source, destination; /* IPv4: the first word */
};

struct wire {
	__u32 bytes; /* Ethernet frames without FCS and VLAN tag, headers of every segment counted */
	__u32 segments;
};

/* Makes the first bytes linear where the driver left them in fragments. Pointers into the packet
 * that were taken before are void. */
static __always_inline void linearise(struct __sk_buff *skb, __u32 bytes)
{
	__u32 wanted = skb->len < bytes ? skb->len : bytes;

	if ((void *)(long)skb->data + wanted > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, wanted);
}

static __always_inline struct cursor cursor_at_start(struct __sk_buff *skb)
{
	return (struct cursor){ (void *)(long)skb->data, (void *)(long)skb->data_end, 0 };
}

static __always_inline void advance(struct cursor *cur, __u32 bytes)
{
	cur->pos += bytes;
	cur->offset += bytes;
}

/* Passes the link header and inline tags. Returns the EtherType, in network byte order. */
static __always_inline int parse_link(struct __sk_buff *skb, struct cursor *cur,
				      enum link_layer link, __u16 *tag_bytes)
{
	struct ethhdr *eth = cur->pos;
	__be16 protocol;

	*tag_bytes = 0;
	if (link == LINK_RAW)
		return (__be16)skb->protocol;

	if ((void *)(eth + 1) > cur->end)
		return PARSE_FAILED;
	protocol = eth->h_proto;
	advance(cur, sizeof(*eth));

#pragma unroll
	for (int i = 0; i < MAX_INLINE_TAGS; i++) {
		struct vlan_tag *tag = cur->pos;

		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > cur->end)
			return PARSE_FAILED;
		protocol = tag->inner_proto;
		advance(cur, sizeof(*tag));
		*tag_bytes += sizeof(*tag);
	}
	return protocol;
}

/* Passes an IPv4 header with its options. Returns the protocol. */
static __always_inline int parse_ipv4(struct cursor *cur, struct iphdr **header)
{
	struct iphdr *ip = cur->pos;

	if ((void *)(ip + 1) > cur->end)
		return PARSE_FAILED;
	if (ip->version != 4 || ip->ihl < 5)
		return PARSE_FAILED;
	*header = ip;
	advance(cur, ip->ihl * 4);
	return ip->protocol;
}

/* Passes the fixed IPv6 header. Returns the next header. */
static __always_inline int parse_ipv6(struct cursor *cur, struct ipv6hdr **header)
{
	struct ipv6hdr *ip = cur->pos;

	if ((void *)(ip + 1) > cur->end)
		return PARSE_FAILED;
	if (ip->version != 6)
		return PARSE_FAILED;
	*header = ip;
	advance(cur, sizeof(*ip));
	return ip->nexthdr;
}

static __always_inline bool is_extension(int next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_FRAGMENT || next == IPPROTO_AH;
}

enum fragment {
	WHOLE, /* also an "atomic" fragment, which is all of its packet (RFC 6946) */
	FIRST_FRAGMENT,
	LATER_FRAGMENT, /* has no transport header */
};

/* Passes IPv6 extension headers (RFC 8200), of a fragment other than the first those in front of its
 * fragment header. Returns the transport protocol, which is that of the whole packet unless more
 * extension headers follow in the first fragment; IPPROTO_NONE where there is none. */
static __always_inline int pass_extensions(struct cursor *cur, int next, enum fragment *fragment)
{
	*fragment = WHOLE;
	/* Unrolled: older kernels (6.1) refuse a loop whose way back falls through into its head. */
#pragma unroll
	for (int passed = 0; passed <= MAX_EXTENSIONS; passed++) {
		struct extension *ext = cur->pos;

		if (!is_extension(next))
			return next;
		if (passed == MAX_EXTENSIONS || (void *)(ext + 1) > cur->end)
			return PARSE_FAILED;
		if (next == IPPROTO_FRAGMENT) {
			if (ext->rest & bpf_htons(0xfff8)) { /* offset in units of 8 bytes */
				*fragment = LATER_FRAGMENT;
				return ext->next;
			}
			if (ext->rest & bpf_htons(1)) /* more fragments */
				*fragment = FIRST_FRAGMENT;
			advance(cur, sizeof(*ext));
		} else if (next == IPPROTO_AH) {
			advance(cur, (ext->length + 2) * 4); /* RFC 4302, 2.2 */
		} else {
			advance(cur, (ext->length + 1) * 8);
		}
		next = ext->next;
	}
	return PARSE_FAILED;
}

/* As pass_extensions, but IPPROTO_FRAGMENT for a fragment other than the first. */
static __always_inline int parse_extensions(struct cursor *cur, int next)
{
	enum fragment fragment;

	next = pass_extensions(cur, next, &fragment);
	return fragment == LATER_FRAGMENT ? IPPROTO_FRAGMENT : next;
}

/* Parses link and network header. Returns 0, or PARSE_FAILED for what ends too early or says of
 * itself to be IP and is not; ip_version is 0 then. */
static __always_inline int parse_packet(struct __sk_buff *skb, enum link_layer link,
					struct packet *packet)
{
	struct cursor cur;
	struct iphdr *ip4;
	struct ipv6hdr *ip6;
	int protocol, next;

	linearise(skb, NETWORK_HEADERS);
	cur = cursor_at_start(skb);
	packet->ip_version = 0;
	packet->protocol = 0;
	packet->network = 0;
	packet->next = 0;
	packet->hop_limit = 0;
	protocol = parse_link(skb, &cur, link, &packet->tag_bytes);
	if (protocol == PARSE_FAILED)
		return PARSE_FAILED;
	packet->protocol = protocol;
	packet->network = cur.offset;

	if (protocol == bpf_htons(ETH_P_IP)) {
		next = parse_ipv4(&cur, &ip4);
		if (next == PARSE_FAILED)
			return PARSE_FAILED;
		packet->ip_version = 4;
		packet->next = next;
		packet->hop_limit = ip4->ttl;
		packet->source.in6_u.u6_addr32[0] = ip4->saddr;
		packet->destination.in6_u.u6_addr32[0] = ip4->daddr;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		next = parse_ipv6(&cur, &ip6);
		if (next == PARSE_FAILED)
			return PARSE_FAILED;
		packet->ip_version = 6;
		packet->next = next;
		packet->hop_limit = ip6->hop_limit;
		packet->source = ip6->saddr;
		packet->destination = ip6->daddr;
	}
	return 0;
}

/* A cursor at the transport header, and the protocol in *next. Pointers into the packet that were
 * taken before are void. */
static __always_inline struct cursor cursor_at_transport(struct __sk_buff *skb,
							 const struct packet *packet, int *next)
{
	struct cursor cur;
	struct iphdr *ip4;
	struct ipv6hdr *ip6;

	linearise(skb, TRANSPORT_HEADERS);
	cur = cursor_at_start(skb);
	advance(&cur, packet->network & 0x1f); /* at most 22; the verifier wants to see a bound */
	if (packet->protocol == bpf_htons(ETH_P_IP)) {
		*next = parse_ipv4(&cur, &ip4);
		if (*next != PARSE_FAILED && ip4->frag_off & bpf_htons(0x1fff))
			*next = IPPROTO_FRAGMENT;
	} else if (packet->protocol == bpf_htons(ETH_P_IPV6)) {
		*next = parse_ipv6(&cur, &ip6);
		if (*next != PARSE_FAILED)
			*next = parse_extensions(&cur, *next);
	} else {
		*next = PARSE_FAILED;
	}
	return cur;
}

/* Bytes in front of the payload of a GSO packet, repeated on the wire with every segment. Of a
 * tunnel these are the outer headers only: what is inside is not looked into. */
static __noinline __u32 segment_headers(struct __sk_buff *skb, struct packet *packet)
{
	struct cursor cur;
	int next;

	if (!packet)
		return 0;
	cur = cursor_at_transport(skb, packet, &next);
	if (next == IPPROTO_TCP) {
		struct tcphdr *tcp = cur.pos;

		if ((void *)(tcp + 1) > cur.end)
			return 0;
		advance(&cur, tcp->doff * 4);
	} else if (next == IPPROTO_UDP) {
		advance(&cur, sizeof(struct udphdr));
	} else {
		return 0;
	}
	return cur.offset - packet->tag_bytes;
}

/* What a GSO packet is on the wire: so many bytes of it are headers, which come with every segment.
 * gso_segs is 0 for packets from a guest whose segments nobody has counted yet (SKB_GSO_DODGY). */
static __always_inline struct wire segmented(struct __sk_buff *skb, __u32 bytes, __u32 headers)
{
	struct wire wire = { bytes, 1 };
	__u32 payload = bytes > headers ? bytes - headers : 0;

	wire.segments = skb->gso_segs ?: (payload + skb->gso_size - 1) / skb->gso_size;
	if (!wire.segments)
		wire.segments = 1;
	wire.bytes += (wire.segments - 1) * headers;
	return wire;
}

/* What this packet is on the wire. One skb may be many segments (GSO). */
static __always_inline struct wire wire_size(struct __sk_buff *skb, struct packet *packet)
{
	struct wire wire = { skb->len - packet->tag_bytes, 1 };

	if (!skb->gso_size)
		return wire;
	return segmented(skb, wire.bytes, segment_headers(skb, packet));
}

/* 01:80:c2:00:00:0X: what bridges talk among each other (802.1D); none forwards it. */
static __always_inline bool is_to_bridges(struct __sk_buff *skb)
{
	const __u8 *mac = (void *)(long)skb->data;

	if ((void *)(mac + ETH_ALEN) > (void *)(long)skb->data_end)
		return false;
	return mac[0] == 0x01 && mac[1] == 0x80 && mac[2] == 0xc2 && !mac[3] && !mac[4] &&
	       mac[5] < 0x10;
}

static __always_inline bool is_stp(struct __sk_buff *skb, const struct packet *packet)
{
	const __u8 *llc = (void *)(long)skb->data + (packet->network & 0x1f);

	if ((void *)(llc + 2) > (void *)(long)skb->data_end)
		return false;
	return llc[0] == 0x42 && llc[1] == 0x42; /* DSAP and SSAP of STP, 802.1D */
}

/* A source that no router forwards: unspecified or link-local. */
static __always_inline bool is_from_this_link(const struct packet *packet)
{
	const __be32 *ip = packet->source.in6_u.u6_addr32;

	return (ip[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
	       !(ip[0] | ip[1] | ip[2] | ip[3]);
}

/* Neighbour discovery with its kin (133-137: RFC 4861) has a hop limit of 255, which says that it
 * crossed no router. MLD (130-132, 143: RFC 2710, 3810) has one of 1, which says nothing, and a
 * source that no router forwards. So nobody gets through a router by calling his packets so. */
static __noinline int is_icmp6_control(struct __sk_buff *skb, struct packet *packet)
{
	struct icmp6hdr *icmp;
	struct cursor cur;
	int next;

	if (!packet)
		return 0;
	cur = cursor_at_transport(skb, packet, &next);
	icmp = cur.pos;
	if (next != IPPROTO_ICMPV6 || (void *)icmp + 4 > cur.end)
		return 0;
	if (icmp->icmp6_type >= 133 && icmp->icmp6_type <= 137)
		return packet->hop_limit == 255;
	if (icmp->icmp6_type == 143 || (icmp->icmp6_type >= 130 && icmp->icmp6_type <= 132))
		return packet->hop_limit == 1 && is_from_this_link(packet);
	return 0;
}

/* IGMP, the MLD of IPv4 (RFC 2236, 3376): for one hop, to a group. Its source is an ordinary address of
 * the host's, so it is the group that keeps a router from forwarding it to whom one likes. */
static __always_inline bool is_igmp(const struct packet *packet)
{
	return packet->next == IPPROTO_IGMP && packet->hop_limit == 1 &&
	       (packet->destination.in6_u.u6_addr8[0] & 0xf0) == 0xe0;
}

/* What a network needs to work at all: ARP, neighbour discovery, MLD, IGMP, EAPOL, LLDP and STP. It
 * is neither metered nor policed. Through a bridge anybody can call his frames so; that no more than a
 * trickle gets through this way, only small frames count, and EAPOL, LLDP and STP only where they
 * are sent to what no bridge forwards. */
static __always_inline bool is_control(struct __sk_buff *skb, struct packet *packet)
{
	if (packet->protocol == bpf_htons(ETH_P_IP))
		return is_igmp(packet) && skb->len <= CONTROL_AT_MOST;
	if (skb->len > CONTROL_AT_MOST)
		return false;
	if (packet->protocol == bpf_htons(ETH_P_IPV6))
		return (packet->next == IPPROTO_ICMPV6 || packet->next == IPPROTO_HOPOPTS) &&
		       is_icmp6_control(skb, packet);
	if (packet->protocol == bpf_htons(ETH_P_ARP))
		return true;
	if (packet->network < sizeof(struct ethhdr) || !is_to_bridges(skb))
		return false;
	if (bpf_ntohs(packet->protocol) < ETH_P_802_3_MIN) /* a length: 802.3 with LLC */
		return is_stp(skb, packet);
	return packet->protocol == bpf_htons(ETH_P_PAE) ||
	       packet->protocol == bpf_htons(ETH_P_LLDP);
}

/* The address that an ARP packet says to be its sender's; 0 where there is none. */
static __always_inline __be32 arp_sender(struct __sk_buff *skb, const struct packet *packet)
{
	struct arp_ipv4 *arp = (void *)(long)skb->data + (packet->network & 0x1f);

	if ((void *)(arp + 1) > (void *)(long)skb->data_end)
		return 0;
	if (arp->protocol != bpf_htons(ETH_P_IP) || arp->hardware_length != ETH_ALEN ||
	    arp->protocol_length != 4)
		return 0;
	return (__be32)arp->sender_ip[1] << 16 | arp->sender_ip[0];
}

#endif
