// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * A token bucket for every source, as a machine of the Open Packet Processor (xfsm.h): a window slides
 * along the time axis, a packet in the window or to the right of it passes and moves the window, one
 * to the left of it is dropped. The register is the window's left edge. Another machine can be put in
 * its place; with a rate in bytes the policer (policer.h) takes it.
 *
 * What is here as initial data is complete: 5 tokens, one regenerated a second, for each source. So
 * `tc filter add dev eth0 ingress bpf da obj tokenbucket.o` limits at once, without our loader.
 *
 * The program passes on (-1) what it does not drop, so that others' programs still run. Its twin,
 * tokenbucket_raw, is for interfaces without an Ethernet header.
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
#include "trace.h"
#include "xfsm.h"

/* The first cells: flows that found the table full share them, chosen by hash. */
#define OVERFLOW_CELLS 4096
/* The original has 256. */
#define DEFAULT_FLOWS 65536

enum flow_states {
	ZERO,
	ONE,
};

/* The window's three places, as conditions: bit 0 says now >= tmin, bit 1 now <= tmax. */
#define FALSE_TRUE 2 /* to the left of it */
#define TRUE_FALSE 1 /* to the right of it */
#define TRUE_TRUE 3  /* in it */

enum update_functions {
	CASE_1, /* in the window: it moves on by what a token takes to regenerate */
	CASE_2, /* it is too old: the packet finds a full bucket */
	CASE_3, /* it stays */
};

/* Defaults of the original: 5 tokens, one a second. tmax is always tmin + DEPTH + REGENERATION. */
#define REGENERATION 1000000000LL
#define DEPTH (4 * REGENERATION)
#define WINDOW (DEPTH + REGENERATION)

/* What tells flows from each other. */
enum flow_of {
	BY_SOURCE,
	BY_DESTINATION,
	BY_5TUPLE,
};

/* Why a packet passed or was dropped (trace.h). */
enum reason {
	NOT_IP,  /* passed, not metered; so are the next three */
	CONTROL, /* neighbour discovery, MLD, IGMP */
	EXEMPT,
	MALFORMED,
	NO_TRANSPORT, /* dropped: the machine looks behind the IP header, and that cannot be followed */
	BY_ROW, /* what the machine's row says; detail is its number, figure the register's age in ns */
	WITHOUT_ROW, /* passed: the machine has no such row; likewise */
	BY_BYTES,    /* figure: see beyond_burst */
	LOST_RACE,   /* dropped */
	NO_CELL,     /* dropped: never */
};

/* And what holds beside that. */
#define NEW_FLOW 1   /* nothing was known of it */
#define TABLE_FULL 2 /* the flow found no room */

#define NEEDED_BY_KEY 1
#define NEEDED_BY_MACHINE 2

/* Of what user space reads here and in the maps; to be raised whenever that changes. */
#define LAYOUT 2

/* What is the same as long as the program is loaded. Flags are bytes: 0 or 1. */
const volatile struct knobs {
	__u32 layout;
	__u8 by; /* enum flow_of */
	/* Keys are longer than struct flow_key: 5-tuples, and IPv6 prefixes of more than 64 bits. */
	__u8 wide_keys;
	/* Bytes at a rate instead of the machine. */
	__u8 polices_bytes;
	/* Packets are counted, and charged, as segments. */
	__u8 counts_segments;
	/* Who looks behind the IP header: NEEDED_BY_… */
	__u8 needs_transport;
	/* Counts what would be dropped, drops nothing. */
	__u8 dry_run;
	__u8 have_exempt_nets;
	/* Tests set the time themselves. */
	__u8 virtual_clock;
	__be32 mask4;
	__be32 mask6[4];
	/* So that nobody outside can tell who shares an overflow cell. */
	__u32 seed;
	/* Cells behind those for overflow: --max-entries. */
	__u32 flows;
	/* enum tracing: of which packets the program says what became of them and why. */
	__u32 tracing;
	/* Of dropped packets one in so many is told; 0: each. */
	__u32 trace_one_in;
} knobs = {
	.layout = LAYOUT,
	.flows = DEFAULT_FLOWS,
	.mask4 = 0xffffffff,
	.mask6 = { 0xffffffff, 0xffffffff, 0, 0 },
};

const volatile struct machine machine = {
	.conditions = {
		{ AGE, GREATER_OR_EQUAL },
		{ AGE, LESS_OR_EQUAL },
	},
	.updates = {
		[CASE_1] = { .from_now = false },
		[CASE_2] = { .from_now = true },
		[CASE_3] = { .from_now = false },
	},
	.initial = ZERO,
	.shares_overflow = true,
	.rows = {
		[ROW_OF(ZERO, TRUE_TRUE)] = { ONE, FORWARD, CASE_2 },
		[ROW_OF(ONE, TRUE_FALSE)] = { ONE, FORWARD, CASE_2 },
		[ROW_OF(ONE, TRUE_TRUE)] = { ONE, FORWARD, CASE_1 },
		[ROW_OF(ONE, FALSE_TRUE)] = { ONE, DISCARD, CASE_3 },
	},
};

/* The rule's figures. */
struct rule {
	struct figures xfsm;
	__u64 cost; /* of a byte, and burst: as in struct bucket */
	__u64 burst;
	/* The tick counter as a clock: ns = ticks * ns_per_tick + ns_at_tick_0. 0: the precise clock. */
	__u64 ns_per_tick;
	__s64 ns_at_tick_0;
	/* What the user asked for, to be shown: tokens and regeneration in ns, or rate and burst. */
	__u64 tokens;
	__u64 regeneration;
	__u64 bits_per_second;
	__u64 burst_bytes;
};

/* User space writes the rule that is not in use, then says that it is. No program writes here. */
struct rulebook {
	struct rule rules[2];
	__u64 in_use;
} rulebook = {
	.rules[0] = {
		.xfsm = {
			.conditions = { 0, WINDOW },
			.updates = {
				[CASE_1] = REGENERATION,
				[CASE_2] = -DEPTH,
				[CASE_3] = 0,
			},
			.fresh = -WINDOW,
			.forget = 2 * WINDOW,
		},
		.tokens = 5,
		.regeneration = REGENERATION,
	},
};

__u64 virtual_now;
/* Of a packet of which not all is there: bytes that it had; 0: those that are there. */
__u32 virtual_length;
/* What read_clock found. */
__u64 clock_ticks;
__u64 clock_ns;

/* The address is the first word of IPv4, or the upper half of IPv6. */
struct flow_key {
	__be16 ether_type;
	__u8 protocol; /* of 5-tuples */
	__u8 zero;
	__be32 address[2];
};

struct wide_flow_key {
	__be16 ether_type;
	__u8 protocol;
	__u8 zero;
	__be32 address[4];
	__be32 peer[4];
	__be16 ports[2]; /* source, destination; 0 where there are none */
};

/* What is known of a flow. */
struct cell {
	__u64 word; /* of the machine; or, with a rate in bytes, paid_until of the policer; 0: nobody's */
	__u64 passed; /* packets, as they are charged */
	__u64 dropped;
};

/* A flow that this CPU found a moment ago. */
struct recent {
	__u64 tick; /* when; in any other tick it says nothing */
	struct flow_key key;
	__u32 cell;
};

struct meter {
	__u64 packets; /* as they are charged */
	__u64 bytes; /* Ethernet frames without FCS and VLAN tag, headers of every segment counted */
};

/* Whatever could be lost is counted. */
struct events {
	struct meter passed;
	struct meter dropped;
	__u64 flows;      /* new entries in the table */
	__u64 not_ip;     /* ARP and the like, neighbour discovery …: passed, not metered */
	__u64 exempt;     /* --exempt: passed, not metered */
	__u64 malformed;  /* says IP and is not, or ends too early: passed, not metered; but dropped
			     * where the machine cannot see the header that it looks at */
	__u64 no_row;     /* the machine says nothing about the packet: passed */
	__u64 overflowed; /* packets that shared an overflow cell, because the table was full */
	__u64 lost_race;  /* dropped: other CPUs won every exchange for the flow's word */
	__u64 table_errors; /* an insert failed though there was room */
};

/* Flow -> its cell. A table that enforces is no LRU: each eviction would be a fresh bucket for
 * somebody. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_FLOWS); /* --max-entries */
	__type(key, struct flow_key);
	__type(value, __u32);
} state_table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* --max-entries, with wide keys */
	__type(key, struct wide_flow_key);
	__type(value, __u32);
} wide_state_table SEC(".maps");

/* Apart from the table, so that a packet that is known can do without the table, and so that user space
 * can take a cell back by one exchange: the flow either still has it, or finds it empty. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OVERFLOW_CELLS + DEFAULT_FLOWS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cell);
} cells SEC(".maps");

/* How many cells were taken for the first time. A map of its own, so that a program which takes over
 * from this one goes on with it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cells_taken SEC(".maps");

/* Cells that user space has taken back from flows which no longer said anything. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, DEFAULT_FLOWS);
	__uint(value_size, sizeof(__u32));
} free_cells SEC(".maps");

/* Flows that were found in this very tick, direct-mapped by a hash of the address: where packets come
 * thick, this spares nearly all of them the look-up, the dearest thing that they would do. */
#define RECENT_BITS 8
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << RECENT_BITS);
	__type(key, __u32);
	__type(value, struct recent);
} recents SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct events);
} events SEC(".maps");

struct net_set exempt_nets SEC(".maps");

static __always_inline __u64 now_of(const struct rule *rule)
{
	if (knobs.virtual_clock)
		return virtual_now;
	if (rule->ns_per_tick)
		return bpf_jiffies64() * rule->ns_per_tick + rule->ns_at_tick_0;
	return bpf_ktime_get_ns();
}

static __always_inline void parse_transport(struct __sk_buff *skb, struct packet *packet,
					    struct facts *facts, struct wide_flow_key *key)
{
	struct cursor cur;
	__be16 *ports;
	int next;

	cur = cursor_at_transport(skb, packet, &next);
	facts->protocol = next;
	key->protocol = next;
	facts->port = -1;
	if (next != IPPROTO_TCP && next != IPPROTO_UDP && next != IPPROTO_SCTP &&
	    next != IPPROTO_DCCP && next != IPPROTO_UDPLITE)
		return;
	ports = cur.pos;
	if ((void *)(ports + 2) > cur.end)
		return;
	facts->port = bpf_ntohs(ports[1]);
	key->ports[0] = ports[0];
	key->ports[1] = ports[1];
}

static __always_inline void address_of(const struct packet *packet, const struct in6_addr *ip,
				       struct wide_flow_key *key)
{
	if (packet->ip_version == 4) {
		key->address[0] = ip->in6_u.u6_addr32[0] & knobs.mask4;
		return;
	}
	key->address[0] = ip->in6_u.u6_addr32[0] & knobs.mask6[0];
	key->address[1] = ip->in6_u.u6_addr32[1] & knobs.mask6[1];
	if (knobs.wide_keys) {
		key->address[2] = ip->in6_u.u6_addr32[2] & knobs.mask6[2];
		key->address[3] = ip->in6_u.u6_addr32[3] & knobs.mask6[3];
	}
}

static __always_inline void key_of(const struct packet *packet, struct wide_flow_key *key)
{
	key->ether_type = packet->protocol;
	if (knobs.by != BY_5TUPLE)
		key->protocol = key->ports[0] = key->ports[1] = 0;
	if (knobs.by == BY_DESTINATION) {
		address_of(packet, &packet->destination, key);
		return;
	}
	address_of(packet, &packet->source, key);
	if (knobs.by == BY_5TUPLE) {
		key->peer[0] = packet->destination.in6_u.u6_addr32[0];
		if (packet->ip_version == 6) {
			key->peer[1] = packet->destination.in6_u.u6_addr32[1];
			key->peer[2] = packet->destination.in6_u.u6_addr32[2];
			key->peer[3] = packet->destination.in6_u.u6_addr32[3];
		}
	}
}

/* The two calls must not become one with two maps: see look_up in neighbor_sharing.bpf.c. */
static __always_inline __u32 *look_up(const struct wide_flow_key *key)
{
	__u32 *cell;

	if (knobs.wide_keys) {
		cell = bpf_map_lookup_elem(&wide_state_table, key);
		asm volatile("%0 = %0" : "+r"(cell));
		return cell;
	}
	return bpf_map_lookup_elem(&state_table, key);
}

static __always_inline long insert(const struct wide_flow_key *key, __u32 cell)
{
	long error;

	if (knobs.wide_keys) {
		error = bpf_map_update_elem(&wide_state_table, key, &cell, BPF_NOEXIST);
		asm volatile("%0 = %0" : "+r"(error));
		return error;
	}
	return bpf_map_update_elem(&state_table, key, &cell, BPF_NOEXIST);
}

/* The known flow's cell, or none. */
static __always_inline struct cell *find(const struct wide_flow_key *key)
{
	__u32 place = ((key->address[0] ^ key->address[1]) * 0x9e3779b1U) >> (32 - RECENT_BITS);
	const struct flow_key *flow = (const struct flow_key *)key;
	struct recent *recent = NULL;
	__u64 tick = bpf_jiffies64();
	__u32 *cell, known;

	if (!knobs.wide_keys) {
		recent = bpf_map_lookup_elem(&recents, &place);
		if (recent) {
			/* First: with PREEMPT_RT another packet may take the place in between. */
			known = *(volatile __u32 *)&recent->cell;
			if (recent->tick == tick && recent->key.address[0] == flow->address[0] &&
			    recent->key.address[1] == flow->address[1] &&
			    recent->key.ether_type == flow->ether_type)
				return bpf_map_lookup_elem(&cells, &known);
		}
	}
	cell = look_up(key);
	if (!cell)
		return NULL;
	if (recent) {
		*(volatile __u64 *)&recent->tick = 0;
		recent->key = *flow;
		*(volatile __u32 *)&recent->cell = *cell;
		*(volatile __u64 *)&recent->tick = tick;
	}
	return bpf_map_lookup_elem(&cells, cell);
}

/* Takes a cell that no flow has. False where there is none. */
static __always_inline bool take_cell(__u32 *index)
{
	__u32 zero = 0, *taken = bpf_map_lookup_elem(&cells_taken, &zero);

	if (taken && *(volatile __u32 *)taken < knobs.flows) {
		*index = OVERFLOW_CELLS + __sync_fetch_and_add(taken, 1);
		if (*index < OVERFLOW_CELLS + knobs.flows)
			return true;
	}
	return !bpf_map_pop_elem(&free_cells, index);
}

/* Flows that found the table full are under the rule too, some of them together. */
static __always_inline struct cell *overflow_cell(const struct wide_flow_key *key, __u64 word,
						  bool *is_entered)
{
	const __u32 *words = (const __u32 *)key;
	__u32 hash = knobs.seed, index;
	struct cell *cell;

#pragma unroll
	for (int i = 0; i < (int)(sizeof(*key) / sizeof(__u32)); i++) {
		hash = (hash ^ words[i]) * 0x9e3779b1U;
		hash ^= hash >> 15;
	}
	index = hash % OVERFLOW_CELLS;
	cell = bpf_map_lookup_elem(&cells, &index);
	*is_entered = cell && !cell->word && !__sync_val_compare_and_swap(&cell->word, 0, word);
	return cell;
}

/* A cell for a new flow, or none: there is no room. Another CPU may have been quicker: then `word` was
 * not entered. */
static __always_inline struct cell *enter(const struct wide_flow_key *key, __u64 word,
					  bool *is_entered)
{
	__u32 index, *known;
	struct cell *cell;
	long error;

	*is_entered = false;
	if (!take_cell(&index))
		return NULL;
	cell = bpf_map_lookup_elem(&cells, &index);
	if (!cell)
		return NULL;
	cell->word = word;
	cell->passed = 0;
	cell->dropped = 0;
	error = insert(key, index);
	if (!error) {
		*is_entered = true;
		COUNT(flows);
		return cell;
	}
	cell->word = 0;
	bpf_map_push_elem(&free_cells, &index, 0);
	if (error != -EEXIST) {
		COUNT(table_errors);
		return NULL;
	}
	known = look_up(key);
	return known ? bpf_map_lookup_elem(&cells, known) : NULL;
}

/* Not an action: the cell was taken back from the flow in this very moment. */
#define TAKEN_BACK 0xff

/* The row that a step has taken. */
static __always_inline void note_step(struct ground *ground, const struct step *step)
{
	if (!knobs.tracing)
		return;
	ground->reason = step->action == NO_ROW ? WITHOUT_ROW : BY_ROW;
	ground->detail = step->row;
	ground->figure = step->age;
}

/* The bytes that there was room for. Another CPU may take some of it before the verdict. */
static __always_inline void note_bytes(struct ground *ground, const struct rule *rule,
				       const struct cell *cell, const struct facts *facts)
{
	if (!knobs.tracing)
		return;
	ground->reason = BY_BYTES;
	ground->figure = beyond_burst(*(volatile __u64 *)&cell->word, rule->cost, rule->burst,
				      facts->length, facts->now * UNITS_PER_NS);
}

static __always_inline void note(struct ground *ground, enum reason reason)
{
	if (knobs.tracing)
		ground->reason = reason;
}

static __always_inline void note_flag(struct ground *ground, __u8 flag)
{
	if (knobs.tracing)
		ground->flags |= flag;
}

/* What becomes of the packet by what is known of its flow. */
static __always_inline __u32 judge(const struct rule *rule, struct cell *cell,
				   const struct facts *facts, struct ground *ground)
{
	if (knobs.polices_bytes) {
		enum verdict verdict;

		if (!cell->word)
			return TAKEN_BACK;
		note_bytes(ground, rule, cell, facts);
		verdict = police_at(&cell->word, rule->cost, rule->burst, facts->length,
				    facts->now * UNITS_PER_NS);
		if (verdict == CONTENDED) {
			note(ground, LOST_RACE);
			COUNT(lost_race);
		}
		return verdict == CONFORMS ? FORWARD : DISCARD;
	}
	for (int i = 0; i < MAX_ATTEMPTS; i++) {
		__u64 seen = *(volatile __u64 *)&cell->word;
		struct step step;

		if (!seen)
			return TAKEN_BACK;
		step = step_of(&machine, &rule->xfsm, seen, facts);
		if (step.word == seen ||
		    __sync_val_compare_and_swap(&cell->word, seen, step.word) == seen) {
			note_step(ground, &step);
			return step.action;
		}
	}
	note(ground, LOST_RACE);
	COUNT(lost_race);
	return DISCARD;
}

static __always_inline void count_flow(struct cell *cell, const struct facts *facts, __u32 action)
{
	if (action == DISCARD)
		__sync_fetch_and_add(&cell->dropped, facts->packets);
	else
		__sync_fetch_and_add(&cell->passed, facts->packets);
}

/* A machine's new flow is entered as its packet has left it. Were it entered new, another CPU could find
 * it so with a later packet, about which the machine may say nothing. */
static __always_inline __u32 judge_entered(const struct rule *rule, struct cell *cell,
					   const struct facts *facts, const struct step *step,
					   bool is_entered, struct ground *ground)
{
	if (is_entered && !knobs.polices_bytes)
		return step->action;
	return judge(rule, cell, facts, ground);
}

/* The rare way: a flow that has no cell. One that would begin anew with its next packet needs none. */
static __noinline int judge_unknown(const struct rule *rule, const struct wide_flow_key *key,
				    const struct facts *facts, struct ground *ground)
{
	struct step step = {};
	struct cell *cell;
	bool is_entered;
	__u64 fresh;
	__u32 action;

	if (!rule || !key || !facts || !ground)
		return NO_ROW;
	note_flag(ground, NEW_FLOW);
	if (knobs.polices_bytes) {
		step.word = facts->now * UNITS_PER_NS;
	} else {
		fresh = fresh_word(&machine, &rule->xfsm, facts->now);
		step = step_of(&machine, &rule->xfsm, fresh, facts);
		note_step(ground, &step);
		if (step.action == NO_ROW)
			return NO_ROW;
		if (step.word == fresh && -rule->xfsm.fresh >= rule->xfsm.forget)
			return step.action;
	}
	step.word = step.word ?: 1; /* 0 is nobody's */
	cell = enter(key, step.word, &is_entered);
	action = cell ? judge_entered(rule, cell, facts, &step, is_entered, ground) : TAKEN_BACK;
	if (action == TAKEN_BACK) {
		note_flag(ground, TABLE_FULL);
		COUNT(overflowed);
		if (!knobs.polices_bytes && !machine.shares_overflow)
			return step.action;
		cell = overflow_cell(key, step.word, &is_entered);
		action = TAKEN_BACK;
		if (cell)
			action = judge_entered(rule, cell, facts, &step, is_entered, ground);
		if (action == TAKEN_BACK) { /* never: nobody takes these back */
			note(ground, NO_CELL);
			action = DISCARD;
		}
	}
	if (cell)
		count_flow(cell, facts, action);
	return action;
}

static __always_inline int decide(struct __sk_buff *skb, enum link_layer link,
				  struct ground *ground)
{
	const struct rule *rule = &rulebook.rules[rulebook.in_use & 1];
	struct wide_flow_key key;
	struct facts facts = {};
	struct packet packet;
	struct events *counts;
	struct wire wire;
	struct cell *cell;
	__u32 zero = 0, action;

	if (parse_packet(skb, link, &packet) == PARSE_FAILED) {
		note(ground, MALFORMED);
		COUNT(malformed);
		return PASS_ON;
	}
	if (!packet.ip_version || is_control(skb, &packet)) {
		note(ground, packet.ip_version ? CONTROL : NOT_IP);
		COUNT(not_ip);
		return PASS_ON;
	}
	if (knobs.have_exempt_nets && (is_in(&exempt_nets, &packet, &packet.source) ||
				       is_in(&exempt_nets, &packet, &packet.destination))) {
		note(ground, EXEMPT);
		COUNT(exempt);
		return PASS_ON;
	}
	wire = wire_size(skb, &packet);
	if (knobs.tracing == TRACE_ALL && virtual_length)
		wire.bytes = virtual_length - packet.tag_bytes;
	facts.now = now_of(rule);
	facts.length = wire.bytes;
	facts.packets = knobs.counts_segments ? wire.segments : 1;
	__builtin_memset(&key, 0, sizeof(key));
	if (knobs.needs_transport)
		parse_transport(skb, &packet, &facts, &key);
	key_of(&packet, &key);
	if (knobs.needs_transport & NEEDED_BY_MACHINE && facts.protocol == PARSE_FAILED) {
		note(ground, NO_TRANSPORT);
		COUNT(malformed);
		action = DISCARD;
		goto count;
	}

	cell = find(&key);
	action = cell ? judge(rule, cell, &facts, ground) : TAKEN_BACK;
	if (action == TAKEN_BACK)
		action = judge_unknown(rule, &key, &facts, ground);
	else
		count_flow(cell, &facts, action);

count:
	counts = bpf_map_lookup_elem(&events, &zero);
	if (!counts)
		return PASS_ON;
	if (action == NO_ROW)
		counts->no_row += 1;
	if (action != DISCARD) {
		counts->passed.packets += facts.packets;
		counts->passed.bytes += wire.bytes;
		return PASS_ON;
	}
	counts->dropped.packets += facts.packets;
	counts->dropped.bytes += wire.bytes;
	if (knobs.tracing)
		ground->verdict = knobs.dry_run ? TRACE_WOULD_DROP : TRACE_DROPPED;
	return knobs.dry_run ? PASS_ON : DROP;
}

static __always_inline int meter(struct __sk_buff *skb, enum link_layer link)
{
	struct ground ground;
	int verdict;

	if (knobs.tracing)
		__builtin_memset(&ground, 0, sizeof(ground));
	verdict = decide(skb, link, &ground);
	if (knobs.tracing == TRACE_ALL || (knobs.tracing && ground.verdict != TRACE_PASSED))
		trace(skb, &ground, knobs.tracing, knobs.trace_one_in);
	return verdict;
}

/* In the section that tc looks for when it is told none. */
SEC("classifier")
int tokenbucket(struct __sk_buff *skb)
{
	return meter(skb, LINK_ETHERNET);
}

SEC("tc")
int tokenbucket_raw(struct __sk_buff *skb)
{
	return meter(skb, LINK_RAW);
}

/* Run once by user space: the tick counter and the clock at one moment. */
SEC("tc")
int read_clock(struct __sk_buff *skb)
{
	(void)skb;
	clock_ticks = bpf_jiffies64();
	clock_ns = bpf_ktime_get_ns();
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
