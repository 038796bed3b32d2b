// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Counts who talks to whom through the tunnels of an interface, by outer and inner addresses.
 * `handle_ingress` and `handle_egress` stand at its two sides; each only marks in skb->cb which way the
 * packet goes, and calls the parser. That is the same parser twice, for the packet outside and for the
 * packet inside: `parse_outer` reads it with what is known of the interface, leaves in skb->cb what the
 * tunnel's header says, and goes on to `parse_inner`, which reads it with what is found there. A tail call
 * takes one from the other, as well as from one of them to itself, when a packet has to be pulled
 * together first. Everything passes on, unchanged.
 */
#include <stddef.h>

#include "grace.h"
#include "tunnel.h"

#define MAX_VXLAN_PORTS 8
/* What there is room for where no loader of ours has set it: flows (a power of 2), and CPUs; on others
 * nothing is counted. */
#define DEFAULT_FLOWS 4096
#define DEFAULT_CPUS 64
#define DEFAULT_COUNTERS (DEFAULT_CPUS * DEFAULT_FLOWS)
/* Two for each flow: most have one of their own. */
#define DEFAULT_HINTS (2 * DEFAULT_FLOWS)
#define DEFAULT_HINT_SHIFT (64 - 13)
/* Headers are looked for in so many bytes, and are made linear when they are not; an IPv6 packet could have
 * 16 KB of them in eight extension headers (RFC 8504, 5.3 lets a node set a limit). */
#define MAX_HEADERS 1024
#define OFFSET_BITS 10
#define OFFSET_MASK (MAX_HEADERS - 1)

/* Constant from loading on. */
struct knobs {
	__u32 max_entries; /* flows, of all kinds together */
	__u32 hint_shift;  /* 64 - log2 of the number of hints */
	__u32 vxlan_ports; /* how many of vxlan_port are in use; 0: no VXLAN */
	__be16 vxlan_port[MAX_VXLAN_PORTS];
	__u8 is_nvgre_known;       /* else its packets are GRE, with a key of 32 bits */
	__u8 is_multicast_counted; /* and broadcast; else tunnel packets to all or many are only told */
	__u8 pad[2];
};
const volatile struct knobs knobs = {
	.max_entries = DEFAULT_FLOWS,
	.hint_shift = DEFAULT_HINT_SHIFT,
	.vxlan_ports = 1,
	.vxlan_port = { bpf_htons(VXLAN_PORT) },
};

/* Places in `parser`. */
enum stage {
	OUTER = 1,
	INNER = 2,
	EXTENSIONS = 3,
};

/* What the programs leave for one another in skb->cb. */
enum word {
	MARK,
	VNI, /* as in the tunnel's header */
	OFFSETS, /* of the outer IP header, of what is behind an outer UDP header (0: there is none), of what
		    * is inside: 10 bits each */
	END,       /* of the outer packet, where padding may begin */
	TRANSPORT, /* see look_behind_extensions */
};

/* Bits of MARK. */
#define IS_EGRESS (1 << 0)
#define IS_RAW (1 << 1) /* The interface has no Ethernet header. */
#define IS_OUTER_IPV6 (1 << 2)
#define IS_INSIDE (1 << 3)             /* The outer headers have been read. */
#define ARE_EXTENSIONS_PASSED (1 << 4) /* TRANSPORT says what is behind them. */
#define ENCAP_SHIFT 8
#define PROTOCOL_SHIFT 16 /* EtherType of what is inside */

/*
 * A flow: how it is packed, and its addresses, seen from this end of the tunnel: each pair of addresses
 * begins with that of this end, the destination at ingress, the source at egress. Both pairs IPv4, or the
 * inner one nothing, makes a small key, everything else a wide one. Keys are made of whole words, because
 * a CPU waits where it reads a word that it has just written in parts.
 */
struct small_key {
	__u64 kind; /* VNI, 32 bits; encap, 8 bits; IP versions outside and inside (0: not IP), 8 bits each */
	__u64 outer; /* local, 32 bits; remote, 32 bits: from the lowest bit on, each in network byte order */
	__u64 inner;
};

struct wide_key {
	__u64 kind;
	__u64 outer
		[4]; /* local, remote: IPv6 in two words, its first bytes lowest; IPv4 in half of the first */
	__u64 inner[4];
};
#define ENCAP_IN_KIND 32
#define OUTER_IN_KIND 40
#define INNER_IN_KIND 48

#define NO_SLOT 0xffffffffU
#define WORDS_OF(key) (sizeof(key) / sizeof(__u64))

/*
 * Flows have slots. These two maps say which: HASH, so that an insert fails exactly when there is no
 * room, and no flow ever makes room for another one. Each could have all flows.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_FLOWS); /* knobs.max_entries, as in all of these */
	__type(key, struct small_key);
	__type(value, __u32);
} flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_FLOWS);
	__type(key, struct wide_key);
	__type(value, __u32);
} flows6 SEC(".maps");

/* A slot's way from its first flow to its next. */
enum state {
	IS_FREE, /* or of a flow that is being entered: its key is there, but not yet to be read */
	IS_IN_USE, /* From here on the key stays as it is, and packets are counted. */
	IS_LEAVING, /* User space has taken it out of its map, and waits for programs that still count. */
};

/* Whose slot it is. A small key is in the first words. */
struct row {
	enum state state;
	__u32 pad;
	__u64 key[WORDS_OF(struct wide_key)];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DEFAULT_FLOWS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct row);
} rows SEC(".maps");

/*
 * The slot that a key with this hash had when it was last looked for. Whether it is the key's, its row
 * says; a hint that is wrong or old costs a look-up in the maps above, and nothing else. Right ones save
 * it: they take no call. Shared by all CPUs, because they seldom change.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DEFAULT_HINTS);
	__type(key, __u32);
	__type(value, __u32);
} hints SEC(".maps");

/* Slots that were some flow's and may be another one's: user space gives them back. Before these, those
 * from next_slot on. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, DEFAULT_FLOWS);
	__uint(value_size, sizeof(__u32));
} free_slots SEC(".maps");

__u32 next_slot;

/* Ethernet frames without FCS and tags, and wire segments: see wire_size. */
struct counts {
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 rx_packets;
	__u64 rx_bytes;
};

/*
 * By CPU and slot: cpu * max_entries + slot. An ARRAY instead of a per-CPU one, because user space can have
 * it in its memory: a million flows are read without a system call. Only its own CPU writes to it, and
 * programs do not interrupt each other, so no count is lost.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DEFAULT_COUNTERS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

/* What a CPU has counted apart from flows. What is not read counts as it passes here: a GSO packet once. */
struct tally {
	struct counts totals; /* of all flows, and other */
	struct counts other;  /* of flows that there was no slot for */
	__u64 fragments;
	__u64 multicast;
	__u64 malformed;
	__u64 not_tunnel;
	__u64 table_errors; /* a map lacks what it must have, or a program is not in `parser` */
	__u64 pad[3];       /* to whole cache lines */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DEFAULT_CPUS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");

int parse_outer(struct __sk_buff *skb);
int parse_inner(struct __sk_buff *skb);
int look_behind_extensions(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct __sk_buff *));
} parser SEC(".maps") = {
	.values = { [OUTER] = (void *)&parse_outer,
		    [INNER] = (void *)&parse_inner,
		    [EXTENSIONS] = (void *)&look_behind_extensions },
};

static __always_inline struct tally *own_tally(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&tallies, &cpu);
}

#define TELL(what)                                 \
	do {                                       \
		struct tally *tally = own_tally(); \
		if (tally)                         \
			tally->what++;             \
	} while (0)

/* A packet ends too early, or seems to: what is not linear cannot be seen. Then the same program starts
 * once more, with all headers linear. Returns only where that was so before. */
static __always_inline void read_again(struct __sk_buff *skb, enum stage stage)
{
	__u32 wanted = skb->len < MAX_HEADERS ? skb->len : MAX_HEADERS;

	if ((void *)(long)skb->data + wanted <= (void *)(long)skb->data_end)
		return;
	if (!bpf_skb_pull_data(skb, wanted))
		bpf_tail_call(skb, &parser, stage);
}

static __always_inline int hand_over(struct __sk_buff *skb, __u32 mark)
{
	skb->cb[MARK] = mark;
	bpf_tail_call(skb, &parser, OUTER);
	TELL(table_errors);
	return PASS_ON;
}

SEC("tc")
int handle_ingress(struct __sk_buff *skb)
{
	return hand_over(skb, 0);
}

SEC("tc")
int handle_egress(struct __sk_buff *skb)
{
	return hand_over(skb, IS_EGRESS);
}

/* Their twins, for interfaces without an Ethernet header. */
SEC("tc")
int handle_ingress_raw(struct __sk_buff *skb)
{
	return hand_over(skb, IS_RAW);
}

SEC("tc")
int handle_egress_raw(struct __sk_buff *skb)
{
	return hand_over(skb, IS_RAW | IS_EGRESS);
}

static __always_inline bool is_vxlan_port(__be16 port)
{
#pragma unroll
	for (__u32 i = 0; i < MAX_VXLAN_PORTS; i++)
		if (i < knobs.vxlan_ports && knobs.vxlan_port[i] == port)
			return true;
	return false;
}

/* Whether it may be a tunnel's packet, by IP protocol alone. */
static __always_inline bool carries(int protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_GRE || protocol == IPPROTO_IPIP ||
	       protocol == IPPROTO_IPV6;
}

/* A UDP header; GRE's and what it carries are not shorter. */
#define LEAST_BEHIND_IP 8

/* Whether it is one: by the first bytes behind the IP header, so many of which are there. */
static __always_inline bool is_tunnel(const struct cursor *cur, int protocol)
{
	const struct gre_header *gre = cur->pos;
	const struct udphdr *udp = cur->pos;

	if (cur->pos + LEAST_BEHIND_IP > cur->end)
		return false;
	if (protocol == IPPROTO_UDP)
		return udp->dest == bpf_htons(GENEVE_PORT) || is_vxlan_port(udp->dest);
	return protocol != IPPROTO_GRE || !(gre->flags & bpf_htons(GRE_VERSION));
}

/* To all or to many. */
static __always_inline bool is_to_many(struct __sk_buff *skb, __u32 mark, const struct layer *outer)
{
	const __u8 *mac = (void *)(long)skb->data;
	struct cursor cur = cursor_at_start(skb);
	const struct ipv6hdr *ip6 = cur.pos;
	const struct iphdr *ip4 = cur.pos;

	if (!(mark & IS_RAW))
		return (void *)(mac + 1) <= cur.end && *mac & 1;
	if (outer->ip_version == 4)
		return (void *)(ip4 + 1) <= cur.end &&
		       ((ip4->daddr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) ||
			ip4->daddr == bpf_htonl(0xffffffff));
	return (void *)(ip6 + 1) <= cur.end && ip6->daddr.in6_u.u6_addr8[0] == 0xff;
}

static __always_inline int parse_tunnel(struct cursor *cur, int protocol, __u32 *end,
					struct tunnel *tunnel)
{
	const struct udphdr *udp = cur->pos;

	switch (protocol) {
	case IPPROTO_UDP:
		if (parse_udp(cur, end))
			return PARSE_FAILED;
		if (is_vxlan_port(udp->dest))
			return parse_vxlan(cur, tunnel);
		return parse_geneve(cur, tunnel);
	case IPPROTO_GRE:
		return parse_gre(cur, tunnel, knobs.is_nvgre_known);
	case IPPROTO_IPIP:
		*tunnel = (struct tunnel){ IPIP, 0, bpf_htons(ETH_P_IP) };
		return 0;
	default:
		*tunnel = (struct tunnel){ SIT, 0, bpf_htons(ETH_P_IPV6) };
		return 0;
	}
}

/* TRANSPORT: an IP protocol or extension header, 8 bits; whether the packet is a fragment, 8 bits; the
 * offset of that header, 16 bits. */
static __always_inline __u32 transport(int next, enum fragment fragment, __u32 offset)
{
	return (next & 0xff) | fragment << 8 | offset << 16;
}

/*
 * Passes the extension headers of an IPv6 packet, outer or inner: from the one in TRANSPORT to the transport
 * header, which is in TRANSPORT then. A program of its own, because few packets have any, and many ways
 * through them would be as many times the rest of a program for the verifier. Goes back to where it came
 * from; to what cannot be read it finds IPPROTO_NONE.
 */
SEC("tc")
int look_behind_extensions(struct __sk_buff *skb)
{
	__u32 mark = skb->cb[MARK], from = skb->cb[TRANSPORT];
	struct cursor cur = cursor_at_start(skb);
	enum fragment fragment;
	int next;

	advance(&cur, from >> 16 & OFFSET_MASK);
	next = pass_extensions(&cur, from & 0xff, &fragment);
	if (next == PARSE_FAILED || cur.offset >= MAX_HEADERS) {
		read_again(skb, EXTENSIONS);
		next = IPPROTO_NONE;
	}
	skb->cb[TRANSPORT] = transport(next, fragment, cur.offset);
	skb->cb[MARK] = mark | ARE_EXTENSIONS_PASSED;
	if (mark & IS_INSIDE)
		bpf_tail_call(skb, &parser, INNER);
	else
		bpf_tail_call(skb, &parser, OUTER);
	TELL(table_errors);
	return PASS_ON;
}

SEC("tc")
int parse_outer(struct __sk_buff *skb)
{
	__u32 mark = skb->cb[MARK], behind_udp = 0;
	struct cursor cur = cursor_at_start(skb);
	struct tunnel tunnel;
	struct layer outer;
	int first, next;

	first = bpf_htons(ETH_P_TEB);
	if (mark & IS_RAW) /* a frame in place of a packet would be none of such an interface's */
		first = (__be16)skb->protocol == first ? 0 : (__be16)skb->protocol;
	if (parse_layer(skb, &cur, first, skb->len, &outer)) {
		read_again(skb, OUTER);
		goto not_tunnel;
	}
	next = outer.next;
	if (outer.ip_version == 6 && is_extension(next)) {
		if (!(mark & ARE_EXTENSIONS_PASSED)) {
			skb->cb[TRANSPORT] = transport(next, WHOLE, cur.offset);
			bpf_tail_call(skb, &parser, EXTENSIONS);
			TELL(table_errors);
			return PASS_ON;
		}
		next = skb->cb[TRANSPORT] & 0xff;
		outer.fragment = skb->cb[TRANSPORT] >> 8 & 0xff;
		cur = cursor_at_start(skb);
		advance(&cur, skb->cb[TRANSPORT] >> 16 & OFFSET_MASK);
	}
	if (!carries(next))
		goto not_tunnel;
	if (outer.fragment != WHOLE) {
		TELL(fragments);
		return PASS_ON;
	}
	if (cur.pos + LEAST_BEHIND_IP > cur.end) {
		read_again(skb, OUTER);
		if (next == IPPROTO_UDP)
			goto not_tunnel;
		goto malformed;
	}
	if (!is_tunnel(&cur, next))
		goto not_tunnel;
	if (!knobs.is_multicast_counted && is_to_many(skb, mark, &outer)) {
		TELL(multicast);
		return PASS_ON;
	}
	if (next == IPPROTO_UDP)
		behind_udp = cur.offset + sizeof(struct udphdr);
	if (parse_tunnel(&cur, next, &outer.end, &tunnel) || cur.offset > outer.end ||
	    cur.offset >= MAX_HEADERS) {
		read_again(skb, OUTER);
		goto malformed;
	}
	mark = (mark & (IS_EGRESS | IS_RAW)) | IS_INSIDE;
	if (outer.ip_version == 6)
		mark |= IS_OUTER_IPV6;
	skb->cb[MARK] =
		mark | tunnel.encap << ENCAP_SHIFT | (__u32)tunnel.protocol << PROTOCOL_SHIFT;
	skb->cb[VNI] = tunnel.vni;
	skb->cb[OFFSETS] =
		outer.network | behind_udp << OFFSET_BITS | cur.offset << 2 * OFFSET_BITS;
	skb->cb[END] = outer.end;
	bpf_tail_call(skb, &parser, INNER);
	TELL(table_errors);
	return PASS_ON;

not_tunnel:
	TELL(not_tunnel);
	return PASS_ON;
malformed:
	TELL(malformed);
	return PASS_ON;
}

/* The slot is this key's. */
static __always_inline bool has_key(const struct row *row, const __u64 *key, int words)
{
	__u64 difference = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		difference |= row->key[i] ^ key[i];
	return !difference;
}

/* Any function that spreads keys does: a hint may be wrong. */
static __always_inline __u32 hint_of(const __u64 *key, int words)
{
	__u64 hash = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		hash = (hash ^ key[i] ^ hash >> 32) * 0x9e3779b97f4a7c15ULL;
	return hash >> knobs.hint_shift;
}

/* What the map says, if it is still true: an entry's memory may be another one's meanwhile. Whoever finds
 * a slot first tells that it is in use, so that nothing is counted before. */
static __always_inline bool is_entered(__u32 slot, const __u64 *key, int words)
{
	struct row *row = bpf_map_lookup_elem(&rows, &slot);

	if (!row || !has_key(row, key, words))
		return false;
	return __sync_val_compare_and_swap(&row->state, IS_FREE, IS_IN_USE) != IS_LEAVING;
}

static __always_inline __u32 take_slot(void)
{
	__u32 slot;

	if (!bpf_map_pop_elem(&free_slots, &slot))
		return slot;
	if (*(volatile __u32 *)&next_slot >= knobs.max_entries)
		return NO_SLOT;
	slot = __sync_fetch_and_add(&next_slot, 1);
	return slot < knobs.max_entries ? slot : NO_SLOT;
}

/* Gives a new flow a slot. Another CPU may do the same at this moment: it is his, then. */
static __always_inline __u32 enter(void *flows, const __u64 *key, int words)
{
	__u32 slot = take_slot(), *others;
	struct row *row = bpf_map_lookup_elem(&rows, &slot);

	if (!row)
		return NO_SLOT;
#pragma unroll
	for (int i = 0; i < words; i++)
		row->key[i] = key[i];
	if (!bpf_map_update_elem(flows, key, &slot, BPF_NOEXIST)) {
		__sync_val_compare_and_swap(&row->state, IS_FREE, IS_IN_USE);
		return slot;
	}
	bpf_map_push_elem(&free_slots, &slot, 0);
	others = bpf_map_lookup_elem(flows, key);
	if (others) {
		slot = *others;
		if (is_entered(slot, key, words))
			return slot;
	}
	return NO_SLOT;
}

static __always_inline __u32 find(void *flows, const __u64 *key, int words)
{
	__u32 place = hint_of(key, words), slot, *hint, *found;
	struct row *row;

	hint = bpf_map_lookup_elem(&hints, &place);
	if (!hint)
		return NO_SLOT;
	slot = *(volatile __u32 *)hint;
	row = bpf_map_lookup_elem(&rows, &slot);
	if (row && *(volatile enum state *)&row->state == IS_IN_USE && has_key(row, key, words))
		return slot;
	found = bpf_map_lookup_elem(flows, key);
	if (found) {
		slot = *found;
		if (is_entered(slot, key, words))
			goto found;
	}
	slot = enter(flows, key, words);
	if (slot == NO_SLOT)
		return NO_SLOT;
found:
	*(volatile __u32 *)hint = slot;
	return slot;
}

static __always_inline void add(struct counts *counts, __u32 mark, struct wire wire)
{
	if (mark & IS_EGRESS) {
		counts->tx_packets += wire.segments;
		counts->tx_bytes += wire.bytes;
	} else {
		counts->rx_packets += wire.segments;
		counts->rx_bytes += wire.bytes;
	}
}

static __always_inline int count(__u32 slot, __u32 mark, struct wire wire)
{
	__u32 cpu = bpf_get_smp_processor_id(), place = cpu * knobs.max_entries + slot;
	struct tally *tally = bpf_map_lookup_elem(&tallies, &cpu);
	struct counts *counts = slot == NO_SLOT ? NULL : bpf_map_lookup_elem(&counters, &place);

	if (!tally)
		return PASS_ON;
	add(&tally->totals, mark, wire);
	add(counts ?: &tally->other, mark, wire);
	return PASS_ON;
}

static __always_inline __u64 word_of(__be32 low, __be32 high)
{
	return (__u64)high << 32 | low;
}

/* Addresses of the IP header at an offset, this end's first. */
static __always_inline int read_ipv4(struct __sk_buff *skb, __u32 network, bool is_egress,
				     __u64 *pair)
{
	const struct iphdr *ip = (void *)(long)skb->data + (network & OFFSET_MASK);

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return PARSE_FAILED;
	*pair = is_egress ? word_of(ip->saddr, ip->daddr) : word_of(ip->daddr, ip->saddr);
	return 0;
}

static __always_inline int read_ipv6(struct __sk_buff *skb, __u32 network, bool is_egress,
				     __u64 *pair)
{
	const struct ipv6hdr *ip = (void *)(long)skb->data + (network & OFFSET_MASK);
	const __be32 *source = ip->saddr.in6_u.u6_addr32, *destination = ip->daddr.in6_u.u6_addr32;
	int local = is_egress ? 0 : 2, remote = 2 - local;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return PARSE_FAILED;
	pair[local] = word_of(source[0], source[1]);
	pair[local + 1] = word_of(source[2], source[3]);
	pair[remote] = word_of(destination[0], destination[1]);
	pair[remote + 1] = word_of(destination[2], destination[3]);
	return 0;
}

/* Of either version, or none. */
static __always_inline int read_wide(struct __sk_buff *skb, __u32 network, int version,
				     bool is_egress, __u64 *pair)
{
	__u64 ends;

	if (version == 6)
		return read_ipv6(skb, network, is_egress, pair);
	if (version == 4) {
		if (read_ipv4(skb, network, is_egress, &ends))
			return PARSE_FAILED;
		pair[0] = (__u32)ends;
		pair[2] = ends >> 32;
	}
	return 0;
}

/* Bytes that the wire repeats with each segment of a GSO packet: of one that is cut inside the tunnel, as
 * the kernel's own are, all headers up to the inner transport header. A sender in user space may have had
 * UDP itself cut (UDP_SEGMENT): what is inside then ends before the packet does, and comes again in each
 * segment as payload. */
static __always_inline __u32 repeated_headers(struct cursor *cur, int next,
					      const struct layer *inner, __u32 end,
					      __u32 behind_udp)
{
	struct tcphdr *tcp = cur->pos;

	if (behind_udp && inner->end < end)
		return behind_udp;
	if (next == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > cur->end)
			return 0;
		advance(cur, tcp->doff * 4);
	} else if (next == IPPROTO_UDP) {
		advance(cur, sizeof(struct udphdr));
	} else {
		return 0;
	}
	return cur->offset;
}

SEC("tc")
int parse_inner(struct __sk_buff *skb)
{
	__u32 mark = skb->cb[MARK], offsets = skb->cb[OFFSETS], end = skb->cb[END];
	__u32 outer = offsets & OFFSET_MASK, behind_udp = offsets >> OFFSET_BITS & OFFSET_MASK;
	__u32 tag_bytes = mark & IS_RAW ? 0 : outer - sizeof(struct ethhdr), headers;
	struct wire wire = { skb->len - tag_bytes, 1 };
	struct cursor cur = cursor_at_start(skb);
	bool is_egress = mark & IS_EGRESS;
	int outer_version = mark & IS_OUTER_IPV6 ? 6 : 4, next;
	struct layer inner;
	__u64 kind;
	__u32 slot;

	advance(&cur, offsets >> 2 * OFFSET_BITS & OFFSET_MASK);
	if (parse_layer(skb, &cur, mark >> PROTOCOL_SHIFT, end, &inner) ||
	    inner.network >= MAX_HEADERS)
		goto too_short;
	if (skb->gso_size) {
		next = inner.next;
		if (inner.ip_version == 6 && is_extension(next) && cur.offset < MAX_HEADERS) {
			if (!(mark & ARE_EXTENSIONS_PASSED)) {
				skb->cb[TRANSPORT] = transport(next, WHOLE, cur.offset);
				bpf_tail_call(skb, &parser, EXTENSIONS);
				TELL(table_errors);
				return PASS_ON;
			}
			next = skb->cb[TRANSPORT] & 0xff;
			cur = cursor_at_start(skb);
			advance(&cur, skb->cb[TRANSPORT] >> 16 & OFFSET_MASK);
		}
		headers = repeated_headers(&cur, next, &inner, end, behind_udp);
		if (!headers)
			read_again(skb, INNER);
		wire = segmented(skb, wire.bytes, headers ? headers - tag_bytes : 0);
	}
	kind = skb->cb[VNI] | (__u64)(mark >> ENCAP_SHIFT & 0xff) << ENCAP_IN_KIND |
	       (__u64)outer_version << OUTER_IN_KIND | (__u64)inner.ip_version << INNER_IN_KIND;
	if (outer_version == 4 && inner.ip_version != 6) {
		struct small_key key = { kind, 0, 0 };

		if (read_ipv4(skb, outer, is_egress, &key.outer) ||
		    (inner.ip_version && read_ipv4(skb, inner.network, is_egress, &key.inner)))
			goto too_short;
		slot = find(&flows4, (__u64 *)&key, WORDS_OF(key));
	} else {
		struct wide_key key = { .kind = kind };

		if (read_wide(skb, outer, outer_version, is_egress, key.outer) ||
		    read_wide(skb, inner.network, inner.ip_version, is_egress, key.inner))
			goto too_short;
		slot = find(&flows6, (__u64 *)&key, WORDS_OF(key));
	}
	return count(slot, mark, wire);

too_short:
	read_again(skb, INNER);
	TELL(malformed);
	return PASS_ON;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
