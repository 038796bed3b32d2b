/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The Open Packet Processor (Bianchi et al., arXiv 1605.01977): an extended finite state machine for
 * each flow. A packet makes conditions true or false; state and conditions choose a row of the table;
 * the row says what becomes of the packet, which state is next and how the flow's register changes.
 *
 * A flow is one word: 6 bits of state above 58 bits of register, a time in ns. So one
 * compare-and-exchange takes a flow from row to row on any number of CPUs, and no lock is needed. 58
 * bits of ns are 9 years; differences are signed, so neither boot nor wrap-around matters.
 *
 * The machine is data. What it consists of is constant, so that the verifier cuts the code down to
 * what this machine needs; the figures that it computes with can change while it runs.
 */
#ifndef NETBPF_XFSM_H
#define NETBPF_XFSM_H

#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define REGISTER_BITS 58
#define REGISTER_MASK ((1ULL << REGISTER_BITS) - 1)
#define MOST_STATES 64
#define MOST_CONDITIONS 8
#define MOST_UPDATES 16
#define ROWS (MOST_STATES << MOST_CONDITIONS)

/* What a condition looks at. */
enum subject {
	NO_CONDITION,
	AGE,      /* now - register */
	PROTOCOL, /* of the transport layer */
	PORT,     /* destination port; -1 where there is none */
	LENGTH,   /* of the packet, bytes on the wire */
};

/* How it is compared with the condition's figure. */
enum comparison {
	LESS,
	LESS_OR_EQUAL,
	EQUAL,
	NOT_EQUAL,
	GREATER_OR_EQUAL,
	GREATER,
};

struct condition {
	__u8 subject;
	__u8 comparison;
};

/* What becomes of the packet. */
enum action {
	NO_ROW, /* the table says nothing: the packet passes on, the flow stays as it is */
	FORWARD,
	DISCARD,
};

/* Register = (register or now) + the update's figure. */
struct update {
	__u8 from_now;
};

struct row {
	__u8 next;
	__u8 action;
	__u8 update;
};

/* State and, from the lowest bit on, which conditions hold. */
#define ROW_OF(state, conditions) ((state) << MOST_CONDITIONS | (conditions))

struct machine {
	struct condition conditions[MOST_CONDITIONS];
	struct update updates[MOST_UPDATES];
	__u8 initial; /* state of a new flow */
	/* Flows that find the table full share some words: else each of their packets is a new flow's,
	 * which a limit cannot have, nor a lock that shared ones would open for each other. */
	__u8 shares_overflow;
	struct row rows[ROWS];
};

/* What the machine computes with; times in ns. */
struct figures {
	__s64 conditions[MOST_CONDITIONS];
	__s64 updates[MOST_UPDATES];
	__s64 fresh;   /* a new flow's register: now + fresh */
	__s64 forget;  /* an older register says no more than a new flow's: the flow begins anew */
	__s64 segment; /* what every further segment of a packet adds to the register; 0: nothing */
};

/* What the conditions look at, of one packet. */
struct facts {
	__u64 now;
	__u32 packets; /* segments that are charged, 1 and more */
	__s32 protocol;
	__s32 port;
	__s32 length;
};

struct step {
	__u64 word;
	__u32 action;
	__u32 row; /* for those who ask why */
	__s64 age; /* as the conditions saw it */
};

static __always_inline __u64 word_of(__u64 state, __u64 time)
{
	return state << REGISTER_BITS | (time & REGISTER_MASK);
}

static __always_inline __u64 fresh_word(const volatile struct machine *machine,
					const struct figures *figures, __u64 now)
{
	return word_of(machine->initial, now + figures->fresh);
}

/* The state falls out at the upper end of the difference, the sign comes in again. */
static __always_inline __s64 age_of(__u64 word, __u64 now)
{
	return (__s64)((now - word) << (64 - REGISTER_BITS)) >> (64 - REGISTER_BITS);
}

/* Without branches, or the verifier would walk every row's way on its own. */
static __always_inline __u32 holds(__u8 comparison, __s64 left, __s64 right)
{
	__u64 less = ((__u64)left - (__u64)right) >> 63,
	      greater = ((__u64)right - (__u64)left) >> 63;

	asm volatile("" : "+r"(less), "+r"(greater));
	switch (comparison) {
	case LESS:
		return less;
	case LESS_OR_EQUAL:
		return greater ^ 1;
	case EQUAL:
		return (less | greater) ^ 1;
	case NOT_EQUAL:
		return less | greater;
	case GREATER_OR_EQUAL:
		return less ^ 1;
	default:
		return greater;
	}
}

/* One step of the machine from `word`. Segments of one packet come at one time and go together: the
 * last of them has to conform, but none asks for more than a flow that begins anew has. */
static __always_inline struct step step_of(const volatile struct machine *machine,
					   const struct figures *figures, __u64 word,
					   const struct facts *facts)
{
	__s64 age = age_of(word, facts->now), further = 0;
	struct step step = { .word = word };
	__u32 conditions = 0;
	__u64 base, index;
	__u8 update;

	if (age > figures->forget) {
		word = fresh_word(machine, figures, facts->now);
		age = -figures->fresh;
	}
	if (facts->packets > 1) {
		further = (facts->packets - 1) * figures->segment;
		age -= further < figures->forget ? further : figures->forget;
	}
	step.age = age;

#pragma unroll
	for (int i = 0; i < MOST_CONDITIONS; i++) {
		__s64 left;

		switch (machine->conditions[i].subject) {
		case AGE:
			left = age;
			break;
		case PROTOCOL:
			left = facts->protocol;
			break;
		case PORT:
			left = facts->port;
			break;
		case LENGTH:
			left = facts->length;
			break;
		default:
			continue;
		}
		conditions |= holds(machine->conditions[i].comparison, left, figures->conditions[i])
			      << i;
	}

	/* In assembler: the compiler sees that the mask changes nothing and leaves it out, and older
	 * verifiers do not see it. */
	index = ROW_OF(word >> REGISTER_BITS, conditions);
	asm volatile("%0 &= %1" : "+r"(index) : "i"(ROWS - 1));
	step.row = index;
	step.action = machine->rows[index].action;
	if (step.action == NO_ROW)
		return step;
	update = machine->rows[index].update & (MOST_UPDATES - 1);
	base = machine->updates[update].from_now ? facts->now : word;
	base += figures->updates[update];
	if (step.action == FORWARD)
		base += further;
	step.word = word_of(machine->rows[index].next, base);
	return step;
}

#endif
