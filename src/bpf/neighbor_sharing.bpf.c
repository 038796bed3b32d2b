// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Shares a WAN link with the neighbors: what goes to and from their ports has one small rate
 * together, the rest has another one.
 *
 * Programs on several ports share one map. classify_neighbor and classify_lan, at the ingress of the
 * ports, learn which address lives behind which port and tag the packet; classify_wan, at the ingress
 * of the WAN, tells by that map whose a download is. police_upload, at the egress of the WAN, tells
 * by the tag whose an upload is: a tag is the true port, whatever source address the packet bears
 * and whatever masquerading made of it. Behind masquerading a download bears the router's own
 * address at the WAN, so there deliver_neighbor and deliver_lan, at the egress of the ports, take
 * the place of classify_wan.
 *
 * Every program passes on (-1) what it does not drop, so that others' programs still run. Each has a
 * twin, X_raw, for interfaces without an Ethernet header.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/errno.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "count.h"
#include "nets.h"
#include "parse.h"
#include "policer.h"

enum class {
	REST,
	NEIGHBOR,
	CLASSES,
};

enum direction {
	DOWNLOAD,
	UPLOAD,
	DIRECTIONS,
};

/* One row for each class and direction: class + CLASSES * direction. */
#define METERS (CLASSES * DIRECTIONS)

/* Whatever could be lost is counted. */
struct events {
	__u64 control;           /* ARP, neighbour discovery …: passed, not metered */
	__u64 exempt;            /* --exempt: passed, not metered */
	__u64 malformed;         /* ends too early, or says IP and is not: nobody's address */
	__u64 not_from_a_port;   /* --police-at lan: to the WAN from elsewhere, not metered */
	__u64 not_from_wan;      /* --police-at lan: to a port from elsewhere, not metered */
	__u64 lost_race;         /* dropped: other CPUs won every exchange for the bucket */
	__u64 learned;           /* an address found its first owner */
	__u64 moved;             /* an address went to another port of the same class */
	__u64 taken_over;        /* the other class got an address whose owner was silent */
	__u64 claim_by_neighbor; /* a neighbor sends with an address that the LAN owns */
	__u64 claim_by_lan;      /* a LAN port sends with an address that a neighbor owns */
	__u64 neighbors_full;    /* a neighbor port's quota is used up: address not learned */
	__u64 lan_full;          /* a LAN port's quota is used up: address not learned */
	__u64 outside_nets;      /* --neighbor-net: a source on the wrong side of it, not learned */
	__u64 unknown_while_full; /* downloads to unknown addresses while neighbors were full */
	__u64 tag_lost;           /* uploads whose tag another classifier overwrote */
	__u64 table_errors;       /* an insert failed though there was room */
};

/* skb->tc_index carries the tag from the port's ingress to the WAN's egress, through bridge, router
 * and masquerading: what the packet is, and the slot of its source address. A classifier behind ours
 * may write a class id there, mostly a small number; the mark tells a tag from it. */
#define TAG_MARK_MASK 0xe000
#define TAG_MARK 0xa000
#define TAG_EXEMPT 0x1000
#define TAG_NEIGHBOR 0x0800
/* Slots beyond are not in the tag: behind masquerading their uploads are counted for no address. */
#define TAG_SLOT 0x07ff

/* Slots that are nobody's: what cannot be counted for an address is counted there. */
#define SLOT_UNKNOWN_DOWNLOAD 0
#define SLOT_UNKNOWN_UPLOAD 1

/* Policer units per tick of the kernel's counter; 0 takes the precise clock. */
const volatile __u64 units_per_tick = 0;
/* An address belongs to its owner until the owner was silent for so many ticks. */
const volatile __u64 forget_ticks = 300 * 250;
/* --police-at lan: only traffic between the ports and the WAN is metered. */
const volatile bool only_across_wan = false;
/* The WAN and what stands on it (VLAN, PPPoE, bridge): where downloads come in. 0: none. */
#define WAN_SIDES 8
const volatile __u32 wan_sides[WAN_SIDES];
/* LAN ports are known, so an unknown address is a neighbor's while a neighbor's quota is used up. */
const volatile bool lan_is_known = true;
/* Counts what would be dropped, drops nothing. */
const volatile bool dry_run = false;
/* exempt_nets or neighbor_nets has entries: a look-up there costs 42 ns, so only then. */
const volatile bool have_exempt_nets = false;
const volatile bool have_neighbor_nets = false;
/* Tests set the time themselves, in policer units and in ticks. */
const volatile bool virtual_clock = false;

__u64 virtual_units;
__u64 virtual_ticks;
/* read_clock leaves the tick counter here, to tell user space which tick is now. */
__u64 ticks_now;
/* A neighbor port found its quota used up; user space clears it when there is room again. */
__u32 neighbors_are_full;

struct address4 {
	__be32 ip;
};

struct address6 {
	__be32 ip[4];
};

/* Who owns an address. One word, so that it changes at once for every CPU. */
struct owner {
	__u32 port; /* ifindex */
	__u16 class;
	__u16 slot; /* in address_counts; stays with the address when the owner changes */
} __attribute__((aligned(8)));

struct learned {
	struct owner owner;
	__u64 seen; /* tick of the last packet with this source from its owner */
};

/* An owner that this CPU found a moment ago, or that there was none (port 0). */
struct recent {
	__u64 tick; /* when; in any other tick it says nothing */
	__be32 ip;
	__u32 heard; /* as the source of a packet, so that learned.seen says this tick already */
	struct owner owner;
};

struct port {
	__u32 index; /* in port_use */
	enum class class;
	__u32 quota; /* addresses */
};

/* Addresses that a port owns: learned - released - forgotten (in port_forgotten). */
struct port_use {
	__u64 learned;
	__u64 released;
};

struct meter {
	__u64 packets; /* wire segments */
	__u64 bytes;   /* Ethernet frames without FCS and VLAN tag */
	__u64 dropped_packets;
	__u64 dropped_bytes;
};

struct address_count {
	struct meter meters[DIRECTIONS];
};

/* Address -> owner. A table that enforces is no LRU: each eviction would free somebody. The two
 * families have a map each because a key of 4 bytes is found twice as fast as one of 16. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384); /* --max-entries */
	__type(key, struct address4);
	__type(value, struct learned);
} learned_ips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct address6);
	__type(value, struct learned);
} learned_ips6 SEC(".maps");

/* IPv4 owners that were looked up in this very tick, direct-mapped by a hash of the address. Where packets
 * come thick, this spares nearly all of them the look-up, the dearest thing that they would do. What
 * changes in learned_ips shows a tick later at most (4 ms at HZ=250), so nothing has to be recalled. */
#define RECENT_BITS 8
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << RECENT_BITS);
	__type(key, __u32);
	__type(value, struct recent);
} recents SEC(".maps");

/* Slots of address_counts that no address has, filled by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 16384);
	__uint(value_size, sizeof(__u32));
} free_slots SEC(".maps");

/* By slot. Apart from the tables, because a per-CPU array is the cheapest counter there is (1 ns and
 * two adds; atomic adds in the table's entry would double the cost of the look-up). */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16384 + 2);
	__type(key, __u32);
	__type(value, struct address_count);
} address_counts SEC(".maps");

/* Ports by ifindex, and the bridges that they are ports of: routed from there, a packet came in by the
 * bridge. Small, written before the programs are attached. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct port_use);
} port_use SEC(".maps");

/* Written by user space only, so that nothing is lost between its read and its write. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} port_forgotten SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, METERS);
	__type(key, __u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, METERS);
	__type(key, __u32);
	__type(value, struct meter);
} meters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct events);
} events SEC(".maps");

struct net_set exempt_nets SEC(".maps"), neighbor_nets SEC(".maps");

static __always_inline __u64 now_in_ticks(void)
{
	return virtual_clock ? virtual_ticks : bpf_jiffies64();
}

static __always_inline void count(struct meter *meter, struct wire wire, bool dropped)
{
	if (dropped) {
		meter->dropped_packets += wire.segments;
		meter->dropped_bytes += wire.bytes;
	} else {
		meter->packets += wire.segments;
		meter->bytes += wire.bytes;
	}
}

/* Charges a packet to its class, and says whether it goes on. */
static __always_inline int charge(struct __sk_buff *skb, struct packet *packet, __u32 direction,
				  __u32 class, __u32 slot)
{
	struct wire wire = wire_size(skb, packet);
	__u32 row = class + CLASSES * direction;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &row);
	struct meter *meter = bpf_map_lookup_elem(&meters, &row);
	struct address_count *address = bpf_map_lookup_elem(&address_counts, &slot);
	enum verdict verdict;
	__u64 now;

	if (!bucket || !meter) /* never: the verifier wants it said */
		return PASS_ON;
	now = virtual_clock ? virtual_units : policer_now(units_per_tick);
	verdict = police(bucket, wire.bytes, now);
	count(meter, wire, verdict != CONFORMS);
	if (address)
		count(&address->meters[direction], wire, verdict != CONFORMS);
	if (verdict == CONFORMS)
		return PASS_ON;
	if (verdict == CONTENDED)
		COUNT(lost_race);
	return dry_run ? PASS_ON : DROP;
}

/* The key has the family's size; an IPv4 address is the first word. The two calls must not become one
 * with two maps: the verifier makes a look-up direct only where it sees a single map, and the way
 * through the generic helper costs 15 ns. The move keeps the compiler from joining them. */
static __always_inline struct learned *look_up(const struct packet *packet,
					       const struct in6_addr *ip)
{
	struct learned *entry = NULL;

	if (packet->ip_version == 4) {
		entry = bpf_map_lookup_elem(&learned_ips, ip);
		asm volatile("%0 = %0" : "+r"(entry));
	} else if (packet->ip_version == 6) {
		entry = bpf_map_lookup_elem(&learned_ips6, ip);
	}
	return entry;
}

/* The place in recents for an IPv4 address; none for anything else. */
static __always_inline struct recent *place_of(const struct packet *packet,
					       const struct in6_addr *ip)
{
	__u32 place = (ip->in6_u.u6_addr32[0] * 0x9e3779b1U) >> (32 - RECENT_BITS);

	return packet->ip_version == 4 ? bpf_map_lookup_elem(&recents, &place) : NULL;
}

/* False where nothing of this tick is remembered of the address. */
static __always_inline bool recall(const struct recent *recent, const struct in6_addr *ip,
				   __u64 now, struct owner *owner, bool *heard)
{
	__u64 known;

	if (!recent)
		return false;
	/* First: with PREEMPT_RT another packet may take the place in between. */
	known = *(volatile __u64 *)&recent->owner;
	*heard = *(volatile __u32 *)&recent->heard;
	__builtin_memcpy(owner, &known, sizeof(known));
	return recent->tick == now && recent->ip == ip->in6_u.u6_addr32[0];
}

static __always_inline void remember(struct recent *recent, const struct in6_addr *ip,
				     struct owner owner, __u64 now, bool heard)
{
	__u64 known;

	if (!recent)
		return;
	__builtin_memcpy(&known, &owner, sizeof(known));
	*(volatile __u64 *)&recent->tick = 0;
	*(volatile __be32 *)&recent->ip = ip->in6_u.u6_addr32[0];
	*(volatile __u32 *)&recent->heard = heard;
	*(volatile __u64 *)&recent->owner = known;
	*(volatile __u64 *)&recent->tick = now;
}

/* What is remembered may be about to change. */
static __always_inline void forget(struct recent *recent)
{
	if (recent)
		recent->tick--;
}

/* Who owns an address? False where nobody does. */
static __always_inline bool find_owner(const struct packet *packet, const struct in6_addr *ip,
				       struct owner *owner)
{
	struct recent *recent = place_of(packet, ip);
	__u64 now = now_in_ticks();
	struct learned *entry;
	struct owner known;
	bool heard;

	if (recall(recent, ip, now, &known, &heard)) {
		if (!known.port)
			return false;
		*owner = known;
		return true;
	}
	entry = look_up(packet, ip);
	if (!entry) {
		remember(recent, ip, (struct owner){}, now, false);
		return false;
	}
	*owner = entry->owner;
	remember(recent, ip, *owner, now, false);
	return true;
}

/* Parses a packet that may have to be charged. False where it is not: counted, passed on. */
static __always_inline bool parse_metered(struct __sk_buff *skb, enum link_layer link,
					  struct packet *packet)
{
	if (parse_packet(skb, link, packet) == PARSE_FAILED) {
		COUNT(malformed);
		return true;
	}
	if (is_control(skb, packet)) {
		COUNT(control);
		return false;
	}
	return true;
}

static __always_inline bool is_exempt(const struct packet *packet, const struct in6_addr *ip)
{
	return have_exempt_nets && is_in(&exempt_nets, packet, ip);
}

/* A download is exempt by either end. */
static __always_inline bool is_exempt_download(const struct packet *packet)
{
	if (!is_exempt(packet, &packet->source) && !is_exempt(packet, &packet->destination))
		return false;
	COUNT(exempt);
	return true;
}

/* Nobody can own the unspecified address, loopback or multicast. */
static __always_inline bool can_be_owned(const struct packet *packet)
{
	const __be32 *ip = packet->source.in6_u.u6_addr32;

	if (packet->ip_version == 4) {
		__u8 first = bpf_ntohl(ip[0]) >> 24;

		return first != 0 && first != 127 && first < 224;
	}
	if (packet->ip_version == 6)
		return packet->source.in6_u.u6_addr8[0] != 0xff &&
		       (ip[0] || ip[1] || ip[2] || bpf_ntohl(ip[3]) > 1);
	return false;
}

/* Takes one address off the port's quota. False where it is used up. */
static __always_inline bool take_quota(const struct port *port)
{
	__u32 index = port->index;
	struct port_use *use = bpf_map_lookup_elem(&port_use, &index);
	__u64 *forgotten = bpf_map_lookup_elem(&port_forgotten, &index);

	if (!use || !forgotten)
		return false;
	/* Signed: what others give back in between makes the difference less than 0. */
	if ((__s64)(__sync_fetch_and_add(&use->learned, 1) - use->released - *forgotten) <
	    (__s64)port->quota)
		return true;
	__sync_fetch_and_add(&use->released, 1);
	if (port->class == NEIGHBOR) {
		neighbors_are_full = 1;
		COUNT(neighbors_full);
	} else {
		COUNT(lan_full);
	}
	return false;
}

static __always_inline void give_back_quota(__u32 ifindex)
{
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	struct port_use *use;
	__u32 index;

	if (!port)
		return;
	index = port->index;
	use = bpf_map_lookup_elem(&port_use, &index);
	if (use)
		__sync_fetch_and_add(&use->released, 1);
}

/* A source address that nobody owns: the port becomes its first owner. */
static __always_inline __u32 learn(const struct packet *packet, const struct port *port,
				   __u32 ifindex)
{
	struct learned learned = { .seen = now_in_ticks() };
	__u32 slot;
	long error;

	if (!take_quota(port))
		return SLOT_UNKNOWN_UPLOAD;
	if (bpf_map_pop_elem(&free_slots, &slot)) { /* cannot be: quotas add up to the slots */
		give_back_quota(ifindex);
		return SLOT_UNKNOWN_UPLOAD;
	}
	learned.owner.port = ifindex;
	learned.owner.class = port->class;
	learned.owner.slot = slot;
	if (packet->ip_version == 4)
		error = bpf_map_update_elem(&learned_ips, &packet->source, &learned, BPF_NOEXIST);
	else
		error = bpf_map_update_elem(&learned_ips6, &packet->source, &learned, BPF_NOEXIST);
	if (error) {
		if (error != -EEXIST) /* else another CPU was quicker with the same address */
			COUNT(table_errors);
		bpf_map_push_elem(&free_slots, &slot, 0);
		give_back_quota(ifindex);
		return SLOT_UNKNOWN_UPLOAD;
	}
	COUNT(learned);
	return slot;
}

static __always_inline bool replace_owner(struct owner *owner, struct owner before,
					  struct owner after)
{
	__u64 from, to;

	__builtin_memcpy(&from, &before, sizeof(from));
	__builtin_memcpy(&to, &after, sizeof(to));
	return __sync_val_compare_and_swap((__u64 *)owner, from, to) == from;
}

/* A packet whose source address is owned by another port. Within a class the address just moves. The
 * other class gets it only when the owner has been silent for long: neither does a neighbor throttle
 * a LAN client by sending with its address, nor does a neighbor's packet that comes back in through
 * a LAN port free the neighbor. */
static __always_inline void contend(struct learned *entry, const struct port *port, __u32 ifindex)
{
	struct owner before = entry->owner, after = before;
	__u64 seen = *(volatile __u64 *)&entry->seen;
	__u64 now = now_in_ticks();

	/* Signed: the owner may be heard of in a later tick than the one that we read. */
	if (before.class != port->class && (__s64)(now - seen) < (__s64)forget_ticks) {
		if (port->class == NEIGHBOR)
			COUNT(claim_by_neighbor);
		else
			COUNT(claim_by_lan);
		return;
	}
	if (!take_quota(port))
		return;
	after.port = ifindex;
	after.class = port->class;
	if (!replace_owner(&entry->owner, before, after)) {
		give_back_quota(ifindex);
		return;
	}
	give_back_quota(before.port);
	entry->seen = now;
	if (before.class == after.class)
		COUNT(moved);
	else
		COUNT(taken_over);
}

/* The rare way: an address that is new, or came to another port. Returns its slot. */
static __noinline __u32 settle(struct packet *packet, __u32 ifindex)
{
	struct learned *entry;
	struct port *port;

	if (!packet)
		return SLOT_UNKNOWN_UPLOAD;
	port = bpf_map_lookup_elem(&ports, &ifindex);
	if (!port || !can_be_owned(packet))
		return SLOT_UNKNOWN_UPLOAD;
	if (have_neighbor_nets &&
	    is_in(&neighbor_nets, packet, &packet->source) != (port->class == NEIGHBOR)) {
		COUNT(outside_nets);
		return SLOT_UNKNOWN_UPLOAD;
	}
	entry = look_up(packet, &packet->source);
	if (!entry)
		return learn(packet, port, ifindex);
	contend(entry, port, ifindex);
	return entry->owner.slot;
}

/* The slot of a source address; its owner is heard of. */
static __always_inline __u32 slot_of_source(struct packet *packet, __u32 ifindex)
{
	struct recent *recent = place_of(packet, &packet->source);
	__u64 now = now_in_ticks();
	struct learned *entry;
	struct owner owner;
	bool heard;

	if (recall(recent, &packet->source, now, &owner, &heard) && heard && owner.port == ifindex)
		return owner.slot;
	entry = look_up(packet, &packet->source);
	if (!entry || entry->owner.port != ifindex) {
		forget(recent);
		return settle(packet, ifindex);
	}
	if (entry->seen != now) /* spares other CPUs the cache line */
		entry->seen = now;
	remember(recent, &packet->source, entry->owner, now, true);
	return entry->owner.slot;
}

/* Whether the source says truly that it is exempt: a neighbor may not borrow an exempt address that
 * the LAN owns. */
static __always_inline bool is_exempt_source(const struct packet *packet, __u32 class,
					     __u32 ifindex)
{
	struct learned *entry;

	if (!is_exempt(packet, &packet->source))
		return false;
	if (class != NEIGHBOR)
		return true;
	entry = look_up(packet, &packet->source);
	return entry && entry->owner.port == ifindex;
}

/* Ingress of a port: whose address is this? The tag says it at the WAN's egress. */
static __always_inline int classify_port(struct __sk_buff *skb, enum link_layer link, __u32 class)
{
	__u32 slot = SLOT_UNKNOWN_UPLOAD, tag = TAG_MARK;
	struct packet packet;

	if (parse_packet(skb, link, &packet) == PARSE_FAILED) {
		COUNT(malformed);
	} else if (packet.protocol == bpf_htons(ETH_P_ARP)) {
		/* Who is silent but for ARP can be sent to as well. */
		packet.ip_version = 4;
		packet.source.in6_u.u6_addr32[0] = arp_sender(skb, &packet);
	}
	if (packet.ip_version)
		slot = slot_of_source(&packet, skb->ifindex);
	if (is_exempt_source(&packet, class, skb->ifindex))
		tag |= TAG_EXEMPT;
	if (class == NEIGHBOR)
		tag |= TAG_NEIGHBOR;
	skb->tc_index = tag | (slot <= TAG_SLOT ? slot : SLOT_UNKNOWN_UPLOAD);
	return PASS_ON;
}

/* The class of a download to an address that nobody owns. */
static __always_inline __u32 class_of_unknown(const struct packet *packet)
{
	if (have_neighbor_nets && is_in(&neighbor_nets, packet, &packet->destination))
		return NEIGHBOR;
	if (!neighbors_are_full)
		return REST;
	COUNT(unknown_while_full);
	return lan_is_known ? NEIGHBOR : REST;
}

/* Ingress of the WAN: a download, by the owner of the address it goes to. */
static __always_inline int police_download(struct __sk_buff *skb, enum link_layer link)
{
	struct owner owner = { .slot = SLOT_UNKNOWN_DOWNLOAD };
	struct packet packet;

	if (!parse_metered(skb, link, &packet) || is_exempt_download(&packet))
		return PASS_ON;
	if (!find_owner(&packet, &packet.destination, &owner))
		owner.class = class_of_unknown(&packet);
	return charge(skb, &packet, DOWNLOAD, owner.class, owner.slot);
}

static __always_inline bool came_by_wan(__u32 ifindex)
{
	bool found = false;

#pragma unroll
	for (int i = 0; i < WAN_SIDES; i++)
		found |= ifindex == wan_sides[i];
	return found && ifindex;
}

/* Egress of a port: what came in by the WAN, by the port. */
static __always_inline int deliver(struct __sk_buff *skb, enum link_layer link, __u32 class)
{
	struct owner owner = { .slot = SLOT_UNKNOWN_DOWNLOAD };
	struct packet packet;

	skb->tc_index = 0;
	if (!came_by_wan(skb->ingress_ifindex)) { /* from another port, or the host's own */
		COUNT(not_from_wan);
		return PASS_ON;
	}
	if (!parse_metered(skb, link, &packet) || is_exempt_download(&packet))
		return PASS_ON;
	find_owner(&packet, &packet.destination, &owner);
	return charge(skb, &packet, DOWNLOAD, class, owner.slot);
}

/* The class of an upload without a tag. False where it is not metered. */
static __always_inline bool class_of_untagged(const struct packet *packet, __u32 ifindex,
					      __u32 *class)
{
	struct port *port;

	*class = REST;
	if (!ifindex) { /* the host's own */
		if (is_exempt(packet, &packet->source)) {
			COUNT(exempt);
			return false;
		}
	} else {
		port = bpf_map_lookup_elem(&ports, &ifindex);
		if (port) { /* another classifier at the port has set tc_index after ours */
			COUNT(tag_lost);
			*class = port->class;
			return true;
		}
	}
	if (only_across_wan)
		COUNT(not_from_a_port);
	return !only_across_wan;
}

/* Egress of the WAN: an upload, by the port where it came in. */
static __always_inline int police_uploads(struct __sk_buff *skb, enum link_layer link)
{
	struct owner owner = { .slot = SLOT_UNKNOWN_UPLOAD };
	__u32 tag = skb->tc_index, class;
	struct packet packet;

	skb->tc_index = 0; /* nobody else takes it for his own */
	if (!parse_metered(skb, link, &packet))
		return PASS_ON;
	if ((tag & TAG_MARK_MASK) == TAG_MARK) {
		class = tag & TAG_NEIGHBOR ? NEIGHBOR : REST;
		owner.slot = tag & TAG_SLOT;
	} else if (!class_of_untagged(&packet, skb->ingress_ifindex, &class)) {
		return PASS_ON;
	}
	if (((tag & TAG_MARK_MASK) == TAG_MARK && tag & TAG_EXEMPT) ||
	    is_exempt(&packet, &packet.destination)) {
		COUNT(exempt);
		return PASS_ON;
	}
	if (owner.slot == SLOT_UNKNOWN_UPLOAD)
		find_owner(&packet, &packet.source, &owner);
	return charge(skb, &packet, UPLOAD, class, owner.slot);
}

/* Each program for interfaces with an Ethernet header, and its twin for those without. */
#define TC_PROGRAM(name, body, ...)                             \
	SEC("tc")                                               \
	int name(struct __sk_buff *skb)                         \
	{                                                       \
		return body(skb, LINK_ETHERNET, ##__VA_ARGS__); \
	}                                                       \
	SEC("tc")                                               \
	int name##_raw(struct __sk_buff *skb)                   \
	{                                                       \
		return body(skb, LINK_RAW, ##__VA_ARGS__);      \
	}

TC_PROGRAM(classify_neighbor, classify_port, NEIGHBOR)
TC_PROGRAM(classify_lan, classify_port, REST)
TC_PROGRAM(classify_wan, police_download)
TC_PROGRAM(police_upload, police_uploads)
TC_PROGRAM(deliver_neighbor, deliver, NEIGHBOR)
TC_PROGRAM(deliver_lan, deliver, REST)

/* Run once by user space: which tick is now? */
SEC("tc")
int read_clock(struct __sk_buff *skb)
{
	(void)skb;
	ticks_now = bpf_jiffies64();
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
