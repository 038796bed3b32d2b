// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Clients in the VLANs of a trunk, each brought to the worker that is configured for its MAC address,
 * and the worker's answers brought back. `to_worker` stands at the ingress of the trunk: it learns
 * which VLAN a client is in, takes the tags off and redirects the frame to the client's worker.
 * `to_trunk` stands at the ingress of each worker's interface: it puts the tags of the client that the
 * frame is for back on, and redirects it to the trunk. What is not ours passes on.
 */
#include "count.h"
#include "grace.h"
#include "parse.h"

/* Clients have 16 bits in a word of the directory. */
#define MAX_CLIENTS 65536
#define MAX_WORKERS 4096
/* Different tags of one worker's clients that a broadcast goes out to. */
#define MAX_OUTLETS 64
/* MAC addresses that are not configured are listed up to this number; all of them are counted. */
#define MAX_STRANGERS 1024

/* All tags of a frame in a word, so that one store changes them: outer and inner TCI (802.1Q, 9.6), 16
 * bits each, and what kind they are. */
#define INNER_SHIFT 16
#define IS_TAGGED (1ULL << 32)
#define OUTER_IS_AD (1ULL << 33) /* 802.1ad, a service tag */
#define HAS_INNER (1ULL << 34)
#define INNER_IS_AD (1ULL << 35)
/* The client's worker sends its broadcasts to these tags. */
#define LISTED (1ULL << 36)
/* Priority and drop eligibility of both tags: they change from frame to frame, the place does not. */
#define PRIORITIES 0xf000f000ULL

#define MAC_BITS 48
#define NOBODY 0xffffffffU
#define IS_GROUP (1ULL << 40) /* broadcast and multicast: the first bit on the wire */

/* Constant from loading on. */
struct knobs {
	__u32 trunk;           /* ifindex */
	__u32 directory_rows;  /* of each half of the directory; a power of 2 */
	__u32 directory_shift; /* 64 - log2(directory_rows) */
	__u8 is_hosts_too;     /* The machine itself may be spoken to at these interfaces. */
	__u8 dry_run;
	__u8 pad[2];
};
const volatile struct knobs knobs = { .directory_rows = 2, .directory_shift = 63 };

enum verdict { PASS_IT, DROP_IT, REDIRECT_IT };

/* What a reload can change. */
struct policy {
	enum verdict unknown;  /* for tagged frames from a MAC address that is not configured */
	__u32 unknown_ifindex; /* for REDIRECT_IT */
	enum verdict untagged; /* PASS_IT or DROP_IT */
	__u32 no_move;         /* A client stays in the VLAN that it was first seen in. */
};
/* Until user space has said more, nothing is dropped: strangers are told of. It finds this in .data, where zeros
 * would not be by themselves. */
struct policy policy SEC(".data") = { .unknown = PASS_IT, .untagged = PASS_IT };

/*
 * The directory of MAC addresses. Only user space writes it, and a program never waits for that: it
 * has two halves, and user space writes the one that is not in use, then turns `directory_view`. Each
 * row is a cache line of words, MAC << 16 | client, 0 where there is none; user space chooses the
 * multiplier so that no row overflows. This takes 4 ns where a hash map takes 24 on a CPU on which
 * calls are dear.
 */
#define ROW_WORDS 8
struct directory_row {
	__u64 words[ROW_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4); /* 2 * directory_rows, set when loading */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct directory_row);
} directory SEC(".maps");

/* Bit 0: which half. All of it, with bit 0 set: the multiplier. */
__u64 directory_view;

/* A cache line each. What user space writes, it writes before the client is in the directory. */
struct client {
	__u64 tags;     /* those of its last frame; 0: it has not been heard of */
	__u64 before;   /* tags before its last move */
	__u64 refused;  /* tags of the last frame that --no-move kept out */
	__u64 seen;     /* tick of its last frame */
	__u32 port;     /* ifindex of its worker's interface; user space writes it */
	__u32 worker;   /* row in `workers`; user space writes it */
	__u32 moves;    /* under the worker's lock, as `gone` */
	__u32 refusals; /* frames */
	__u32 has_peer; /* its worker is the other end of a veth, in another namespace; user space */
	__u32 gone;     /* It is no longer configured, but a CPU may still be at it. */
	__u64 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CLIENTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct client);
} clients SEC(".maps");

struct volume {
	__u64 packets; /* wire segments */
	__u64 bytes;   /* Ethernet frames without FCS and tags, headers of every segment counted */
};

struct client_count {
	struct volume rx; /* from the client */
	struct volume tx; /* to it, broadcasts apart */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_CLIENTS);
	__type(key, __u32);
	__type(value, struct client_count);
} client_counts SEC(".maps");

/* Tags that clients of a worker are behind, and how many of them. */
struct outlet {
	__u64 place; /* tags without priorities */
	__u64 clients;
};

struct worker {
	struct bpf_spin_lock lock; /* over the outlets, and over the tags of all its clients */
	__u32 pad;
	__u64 mac; /* of its last frame to a client; with has_peer only */
	struct outlet outlets[MAX_OUTLETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, struct worker);
} workers SEC(".maps");

/* Which row is the worker's behind an interface: for broadcasts, where no client says it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32); /* ifindex */
	__type(value, __u32);
} worker_rows SEC(".maps");

struct worker_count {
	struct volume broadcasts; /* and multicasts, each once */
	__u64 copies;             /* that went out */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, struct worker_count);
} worker_counts SEC(".maps");

/* Who sends and is not configured. LRU: it only tells; `events` counts every frame. */
struct stranger {
	__u64 packets; /* frames */
	__u64 tags;
	__u64 seen; /* tick */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_STRANGERS);
	__type(key, __u64); /* MAC */
	__type(value, struct stranger);
} strangers SEC(".maps");

/* Frames. What is not delivered is dropped or passes on, as the policy says. */
struct events {
	__u64 untagged;
	__u64 unknown;      /* from a MAC address that is not configured */
	__u64 malformed;    /* ends before its tags or addresses do */
	__u64 moved;        /* a client was in another VLAN than before, and was followed */
	__u64 refused;      /* a client was in another VLAN than before, and --no-move is given */
	__u64 outlets_full; /* from clients that are out of their worker's broadcasts: too many tags */
	__u64 to_unknown;      /* from a worker to a unicast address that is none of its clients' */
	__u64 to_unheard;      /* from a worker to a client that has not sent anything yet */
	__u64 to_host;         /* from a worker to the machine itself: passed on */
	__u64 nowhere;         /* a broadcast of a worker none of whose clients was heard of */
	__u64 copies_lost;     /* copies of broadcasts that could not be sent */
	__u64 not_tagged_back; /* no memory for the tags of a frame to a client */
	__u64 table_errors;    /* a map lacks what it must have */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct events);
} events SEC(".maps");

/* read_clock's answer, and forget_client's question. */
__u64 ticks_now;
__u32 client_to_forget;

static __always_inline int act(enum verdict verdict)
{
	if (verdict == REDIRECT_IT)
		return bpf_redirect(*(volatile __u32 *)&policy.unknown_ifindex, 0);
	return verdict == DROP_IT && !knobs.dry_run ? DROP : PASS_ON;
}

/* 02:00:00:00:00:01 is 0x020000000001. */
static __always_inline __u64 mac_at(const void *place)
{
	const __be16 *word = place;

	return (__u64)bpf_ntohs(word[0]) << 32 | (__u64)bpf_ntohs(word[1]) << 16 |
	       bpf_ntohs(word[2]);
}

/* The client's number, which is its row in every map of clients; NOBODY. */
static __always_inline __u32 find(__u64 mac)
{
	__u64 view = *(volatile __u64 *)&directory_view;
	__u32 row = (mac * (view | 1)) >> knobs.directory_shift;
	struct directory_row *words;

	if (view & 1)
		row += knobs.directory_rows;
	words = bpf_map_lookup_elem(&directory, &row);
	/* An empty word looks like 00:00:00:00:00:00, which is nobody's. */
	if (!words || !mac)
		return NOBODY;
#pragma unroll
	for (int i = 0; i < ROW_WORDS; i++)
		if (words->words[i] >> (64 - MAC_BITS) == mac)
			return words->words[i] & (MAX_CLIENTS - 1);
	return NOBODY;
}

static __always_inline bool is_vlan(__u32 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

/* The kernel has the outer tag in the metadata, wherever the driver left it. 0: the frame ends before
 * its inner tag does. */
static __always_inline __u64 tags_of(struct __sk_buff *skb)
{
	__u64 tags = IS_TAGGED | (skb->vlan_tci & 0xffff);
	struct vlan_tag *inner;

	if (skb->vlan_proto == bpf_htons(ETH_P_8021AD))
		tags |= OUTER_IS_AD;
	if (is_vlan(skb->protocol)) {
		inner = (void *)(long)skb->data + ETH_HLEN;
		if ((void *)(inner + 1) > (void *)(long)skb->data_end)
			return 0;
		tags |= HAS_INNER | (__u64)bpf_ntohs(inner->tci) << INNER_SHIFT;
		if (skb->protocol == bpf_htons(ETH_P_8021AD))
			tags |= INNER_IS_AD;
	}
	return tags;
}

/* Both, or none. */
static __always_inline long push_tags(struct __sk_buff *skb, __u64 tags)
{
	long error = 0;

	if (tags & HAS_INNER)
		error = bpf_skb_vlan_push(
			skb, bpf_htons(tags & INNER_IS_AD ? ETH_P_8021AD : ETH_P_8021Q),
			tags >> INNER_SHIFT & 0xffff);
	if (error)
		return error;
	error = bpf_skb_vlan_push(skb, bpf_htons(tags & OUTER_IS_AD ? ETH_P_8021AD : ETH_P_8021Q),
				  tags & 0xffff);
	if (error && tags & HAS_INNER)
		bpf_skb_vlan_pop(skb);
	return error;
}

static __always_inline void pop_tags(struct __sk_buff *skb, __u64 tags)
{
	bpf_skb_vlan_pop(skb);
	if (tags & HAS_INNER) /* the first pop has moved it into the metadata */
		bpf_skb_vlan_pop(skb);
}

/* Without its tags, which are popped or not yet pushed. */
static __always_inline void add(struct __sk_buff *skb, struct volume *volume)
{
	struct wire wire = { skb->len, 1 };
	struct packet packet;

	if (skb->gso_size && !parse_packet(skb, LINK_ETHERNET, &packet))
		wire = wire_size(skb, &packet);
	volume->packets += wire.segments;
	volume->bytes += wire.bytes;
}

/* The client no longer gets the worker's broadcasts there. Under the lock, as join. */
static __always_inline void leave(struct worker *worker, __u64 place)
{
	for (int i = 0; i < MAX_OUTLETS; i++) {
		struct outlet *outlet = &worker->outlets[i];

		if (outlet->clients && outlet->place == place) {
			outlet->clients--;
			return;
		}
	}
}

/* LISTED, or 0 where the worker's clients have too many different tags. */
static __always_inline __u64 join(struct worker *worker, __u64 place)
{
	for (int i = 0; i < MAX_OUTLETS; i++) {
		struct outlet *outlet = &worker->outlets[i];

		if (outlet->clients && outlet->place == place) {
			outlet->clients++;
			return LISTED;
		}
	}
	for (int i = 0; i < MAX_OUTLETS; i++) {
		struct outlet *outlet = &worker->outlets[i];

		if (!outlet->clients) {
			outlet->place = place;
			outlet->clients = 1;
			return LISTED;
		}
	}
	return 0;
}

static __always_inline __u64 place_of(__u64 tags)
{
	return tags & ~(PRIORITIES | LISTED);
}

enum followed { FOLLOWED, FOLLOWED_UNLISTED, MOVED, MOVED_UNLISTED, REFUSED, NOT_OURS };

/* A client is where it was not before, or is not listed yet. The lock makes one story of what several
 * CPUs see, so that the outlets have neither a client too many nor one too few. */
static __always_inline enum followed follow(struct client *client, struct worker *worker,
					    __u64 tags)
{
	bool stays = *(volatile __u32 *)&policy.no_move, moved;
	enum followed result = FOLLOWED;
	__u64 seen, listed;

	bpf_spin_lock(&worker->lock);
	if (client->gone) {
		bpf_spin_unlock(&worker->lock);
		return NOT_OURS;
	}
	seen = client->tags;
	moved = seen && place_of(seen) != place_of(tags);
	if (moved && stays) {
		client->refused = tags;
		client->refusals++;
		result = REFUSED;
	}
	if (result != REFUSED || knobs.dry_run) {
		listed = seen & LISTED;
		if (moved) {
			if (listed)
				leave(worker, place_of(seen));
			listed = 0;
			client->before = seen & ~LISTED;
			client->moves++;
		}
		if (!listed)
			listed = join(worker, place_of(tags));
		client->tags = tags | listed;
		if (result != REFUSED)
			result = (moved ? MOVED : FOLLOWED) + !listed;
	}
	bpf_spin_unlock(&worker->lock);
	return result;
}

/* Whether the frame is to be delivered. */
static __always_inline bool learn(struct client *client, __u64 tags)
{
	__u64 seen = *(volatile __u64 *)&client->tags;
	struct worker *worker;
	__u32 row;

	tags |= LISTED;
	if (seen == tags)
		return true;
	if (!((seen ^ tags) & ~PRIORITIES)) {
		__sync_val_compare_and_swap(&client->tags, seen, tags);
		return true;
	}
	row = client->worker;
	worker = bpf_map_lookup_elem(&workers, &row);
	if (!worker) {
		COUNT(table_errors);
		return false;
	}
	switch (follow(client, worker, tags & ~LISTED)) {
	case FOLLOWED_UNLISTED:
		COUNT(outlets_full);
		return true;
	case MOVED:
		COUNT(moved);
		return true;
	case MOVED_UNLISTED:
		COUNT(moved);
		COUNT(outlets_full);
		return true;
	case REFUSED:
		COUNT(refused);
		return knobs.dry_run;
	case NOT_OURS:
		return false;
	default:
		return true;
	}
}

static __always_inline int from_stranger(__u64 mac, __u64 tags)
{
	__u64 now = bpf_jiffies64();
	struct stranger fresh = { 1, tags, now }, *known;

	COUNT(unknown);
	known = bpf_map_lookup_elem(&strangers, &mac);
	if (known) {
		__sync_fetch_and_add(&known->packets, 1);
		known->tags = tags;
		known->seen = now;
	} else {
		bpf_map_update_elem(&strangers, &mac, &fresh, BPF_ANY);
	}
	return act(*(volatile enum verdict *)&policy.unknown);
}

/* Into the worker's namespace at once, without a way through the veth, where the worker's stack would
 * take the frame: it judges by a mark that only the veth, which is passed by, would set. */
static __always_inline bool goes_to_peer(struct __sk_buff *skb, struct client *client)
{
	struct worker *worker;
	__u32 row = client->worker;

	if (!client->has_peer)
		return false;
	worker = bpf_map_lookup_elem(&workers, &row);
	if (!worker || (void *)(long)skb->data + ETH_ALEN > (void *)(long)skb->data_end ||
	    worker->mac != mac_at((void *)(long)skb->data))
		return false;
	return !bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
}

SEC("tc")
int to_worker(struct __sk_buff *skb)
{
	struct client_count *count;
	struct client *client;
	__u64 mac, tags, now;
	__u32 number;

	if (!skb->vlan_present) {
		COUNT(untagged);
		return act(*(volatile enum verdict *)&policy.untagged);
	}
	linearise(skb, ETH_HLEN + sizeof(struct vlan_tag));
	tags = tags_of(skb);
	if (!tags || (void *)(long)skb->data + ETH_HLEN > (void *)(long)skb->data_end) {
		COUNT(malformed);
		return act(*(volatile enum verdict *)&policy.unknown);
	}
	mac = mac_at((void *)(long)skb->data + ETH_ALEN);
	number = find(mac);
	if (number == NOBODY)
		return from_stranger(mac, tags);
	client = bpf_map_lookup_elem(&clients, &number);
	count = bpf_map_lookup_elem(&client_counts, &number);
	if (!client || !count) {
		COUNT(table_errors);
		return act(DROP_IT);
	}
	if (!learn(client, tags))
		return act(DROP_IT);

	pop_tags(skb, tags);
	now = bpf_jiffies64();
	if (client->seen != now)
		client->seen = now;
	add(skb, &count->rx);
	if (goes_to_peer(skb, client))
		return bpf_redirect_peer(client->port, 0);
	return bpf_redirect(client->port, 0);
}

/* A function of its own, so that the verifier has nothing to remember of one copy at the next. */
static __noinline int send_copy(struct __sk_buff *skb, __u64 place)
{
	long error;

	if (push_tags(skb, place)) /* to pop now would take off a tag of the worker's own */
		return 0;
	error = bpf_clone_redirect(skb, knobs.trunk, 0);
	pop_tags(skb, place);
	return !error;
}

/* Once to each of the tags that the worker's clients are behind. A move at this very moment may cost or
 * double one copy. */
static __always_inline int broadcast(struct __sk_buff *skb)
{
	__u32 port = skb->ifindex, *row;
	struct worker_count *count;
	struct worker *worker;
	__u64 copies;

	row = bpf_map_lookup_elem(&worker_rows, &port);
	if (!row)
		goto lacking;
	worker = bpf_map_lookup_elem(&workers, row);
	if (!worker)
		goto lacking;
	count = bpf_map_lookup_elem(&worker_counts, row);
	if (!count)
		goto lacking;
	add(skb, &count->broadcasts);
	copies = count->copies;
	for (int i = 0; i < MAX_OUTLETS; i++) {
		struct outlet *outlet = &worker->outlets[i];

		if (!*(volatile __u64 *)&outlet->clients)
			continue;
		if (send_copy(skb, *(volatile __u64 *)&outlet->place))
			count->copies++;
		else
			COUNT(copies_lost);
	}
	if (count->copies == copies)
		COUNT(nowhere);
	return knobs.is_hosts_too ? PASS_ON : act(DROP_IT);
lacking:
	COUNT(table_errors);
	return act(DROP_IT);
}

SEC("tc")
int to_trunk(struct __sk_buff *skb)
{
	struct client_count *count;
	struct client *client;
	struct worker *worker;
	__u64 mac, source, tags;
	__u32 number, row;

	linearise(skb, ETH_HLEN);
	if ((void *)(long)skb->data + ETH_HLEN > (void *)(long)skb->data_end) {
		COUNT(malformed);
		return act(DROP_IT);
	}
	mac = mac_at((void *)(long)skb->data);
	source = mac_at((void *)(long)skb->data + ETH_ALEN);
	if (mac & IS_GROUP)
		return broadcast(skb);
	number = find(mac);
	client = bpf_map_lookup_elem(&clients, &number);
	/* Another worker's client is as unknown here as a stranger. */
	if (number == NOBODY || !client || client->port != skb->ifindex) {
		if (knobs.is_hosts_too && !skb->pkt_type /* PACKET_HOST */) {
			COUNT(to_host);
			return PASS_ON;
		}
		COUNT(to_unknown);
		return act(DROP_IT);
	}
	tags = *(volatile __u64 *)&client->tags;
	if (!tags) {
		COUNT(to_unheard);
		return act(DROP_IT);
	}
	count = bpf_map_lookup_elem(&client_counts, &number);
	if (!count) {
		COUNT(table_errors);
		return act(DROP_IT);
	}
	if (client->has_peer) {
		row = client->worker;
		worker = bpf_map_lookup_elem(&workers, &row);
		if (worker && worker->mac != source)
			worker->mac = source;
	}
	add(skb, &count->tx);
	if (push_tags(skb, tags)) {
		COUNT(not_tagged_back);
		return act(DROP_IT);
	}
	return bpf_redirect(knobs.trunk, 0);
}

/* For user space, which cannot take the lock: the client `client_to_forget` is in the directory no more,
 * and from now on in no outlet either. */
SEC("tc")
int forget_client(struct __sk_buff *skb __attribute__((unused)))
{
	__u32 number = client_to_forget, row;
	struct client *client = bpf_map_lookup_elem(&clients, &number);
	struct worker *worker;

	if (!client)
		return PASS_ON;
	row = client->worker;
	worker = bpf_map_lookup_elem(&workers, &row);
	if (!worker)
		return PASS_ON;
	bpf_spin_lock(&worker->lock);
	if (client->tags & LISTED)
		leave(worker, place_of(client->tags));
	client->tags = 0;
	client->gone = 1;
	bpf_spin_unlock(&worker->lock);
	return PASS_ON;
}

/* For the loader, which has to know what `seen` counts from. */
SEC("tc")
int read_clock(struct __sk_buff *skb __attribute__((unused)))
{
	ticks_now = bpf_jiffies64();
	return PASS_ON;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
