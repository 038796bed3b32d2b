// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Acknowledgements that wait for the application. `hold_back` stands at the egress of the links to the
 * peers, and lowers the acknowledgement in what held sockets send to what the application has confirmed. So
 * the peer keeps every byte until then, and sends it again to whoever takes over. What other sockets send
 * passes on as it is, and so does what passes through this host.
 *
 * A place in the stream of a connection is counted in 64 bits from its first byte on. The kernel's count of
 * received bytes belongs to its next sequence number, whatever that was in the beginning; so nothing has to be
 * known of how the connection began, and no sequence number is ever compared with another one.
 */
#include <stddef.h>

#include "count.h"
#include "parse.h"

#define SOCK_STREAM 1 /* linux/net.h, where the kernel keeps it to itself */

/* The socket is held, and has no account yet: nothing is confirmed. A listener's sockets begin so. */
#define NO_SLOT 0xffffffffU

/* What a socket has with it, to its end; connections that a listener accepts begin with a copy of his. */
struct hold {
	__u32 slot;
	__u32 is_released; /* at its bound: what the kernel acknowledges passes */
	__u64 generation;  /* of the slot's account */
	__u64 promised;    /* how far this connection is acknowledged; never less than it was */
	__u64 mark;        /* as far had come, and was not confirmed, ... */
	__u64 marked;      /* ... at this time (CLOCK_MONOTONIC_COARSE, ns) */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct hold);
} holds SEC(".maps");

/* What the application and this program tell each other of a connection, as memory. A slot may be another
 * connection's while packets of the one before are on their way: the generation tells whose it is. */
struct account {
	__u64 generation;
	__u64 confirmed; /* by the application, which alone writes it: it may be acknowledged up to here */
	__u64 is_probe_wanted; /* the application has asked for one; 0 once it has left */
	__u64 promised;        /* as in struct hold: written here, read by the application */
	__u64 most_bytes;      /* that may be unconfirmed; 0: as many as there are */
	__u64 longest;         /* ns that a byte may be unconfirmed; 0: for ever */
	__u32 is_released_at_bound;
	__u32 has_ended; /* the peer's FIN has come, which counts as a byte: written here */
	__u64 reached;   /* BOUND_...; the application sets it to 0 */
};

#define BOUND_BYTES 1
#define BOUND_TIME 2
#define BOUND_RELEASED 4 /* and what had been held back was acknowledged */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* user space sets it */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct account);
} accounts SEC(".maps");

/* A connection by its ends, as they are in what leaves. */
struct ends {
	struct in6_addr here, there; /* IPv4: the first word */
	__be16 here_port, there_port;
};

/* A held connection that has sent its FIN. When the peer's comes, the kernel keeps no more of the socket than
 * it needs to acknowledge all that had come (TIME-WAIT), whether anybody has read it or not; the socket's
 * storage is gone then, and this is what is left. */
struct leaver {
	__u64 generation;
	__u64 promised;
	__u64 seen; /* CLOCK_MONOTONIC_COARSE, ns: when it sent something last */
	__u32 slot;
	__u32 start; /* sequence number of the peer's first byte */
	__u32 end;   /* ours behind the FIN: no other connection between these ends sends with it */
	__u32 pad;
};

/* Whoever is not in it is not held any more, so it must not forget by itself (no LRU): who does not get in
 * does not get his FIN out. User space removes what is of no use any more. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* user space sets it */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ends);
	__type(value, struct leaver);
} leavers SEC(".maps");

/* Local ports, a bit each, that held sockets may have: user space sets them before it holds one, and never takes
 * one away. A call for each packet of all the others would cost ten times as much as all else that is done
 * with them. */
__u64 watched[65536 / 64];

struct events {
	__u64 lowered;    /* acknowledgements */
	__u64 bounds;     /* segments that left with more held back than was to be */
	__u64 probes;     /* that left as plain acknowledgements */
	__u64 unreadable; /* of a held socket, without a TCP header where we look for it: dropped */
	__u64 failed;     /* that could not be changed: dropped */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct events);
} events SEC(".maps");

/* We have sent our FIN, or are about to; the peer's may come any time, or has come as well. */
static __always_inline bool is_leaving(const struct bpf_sock *sk)
{
	return sk->state == BPF_TCP_FIN_WAIT1 || sk->state == BPF_TCP_FIN_WAIT2 ||
	       sk->state == BPF_TCP_CLOSING;
}

/* The peer has sent its FIN, and all before it has come. */
static __always_inline bool has_fin(const struct bpf_sock *sk)
{
	return sk->state == BPF_TCP_CLOSE_WAIT || sk->state == BPF_TCP_LAST_ACK ||
	       sk->state == BPF_TCP_CLOSING;
}

/* Puts a word into the TCP header, and keeps its checksum right: whether the packet has it already or the
 * device is to make it, the helper knows. */
static __always_inline long put(struct __sk_buff *skb, __u32 header, __u32 field, __be32 from,
				__be32 to)
{
	long error = bpf_l4_csum_replace(skb, header + offsetof(struct tcphdr, check), from, to, 4);

	return error ?: bpf_skb_store_bytes(skb, header + field, &to, sizeof(to), 0);
}

/* Acknowledges so many bytes more, or less. */
static __always_inline long move_ack(struct __sk_buff *skb, __u32 header, __u32 ack, __u32 bytes)
{
	if (!bytes)
		return 0;
	COUNT(lowered);
	return put(skb, header, offsetof(struct tcphdr, ack_seq), bpf_htonl(ack),
		   bpf_htonl(ack + bytes));
}

static __always_inline struct account *account_of(__u32 slot, __u64 generation)
{
	struct account *account = bpf_map_lookup_elem(&accounts, &slot);

	return account && account->generation == generation ? account : NULL;
}

/* How far may be acknowledged what the kernel itself acknowledges up to `own`: confirmed, but never less than
 * the peer was told before, and the FIN only with the last byte in front of it. `own_end` is where the FIN
 * ends that has come; 0: none has. */
static __always_inline __u64 allowed(const struct account *account, __u64 generation,
				     __u64 promised, __u64 own, __u64 own_end)
{
	__u64 confirmed = account ? *(volatile __u64 *)&account->confirmed : promised;

	/* Meanwhile the slot may have become another connection's. */
	if (account && *(volatile __u64 *)&account->generation != generation)
		confirmed = promised;
	if (own_end && confirmed + 1 >= own_end)
		confirmed = own_end;
	if (own > confirmed)
		own = confirmed;
	return own > promised ? own : promised;
}

/* Which bound a hold has come to, if any. The peer sends again what is not acknowledged, and each time this
 * socket answers; so it is looked at again and again, whatever the application does. A byte's age is known
 * from the last mark on: it is between once and twice `longest` old when that bound is noticed. */
static __always_inline __u64 bound_reached(struct hold *hold, struct account *account, __u64 own,
					   __u64 place)
{
	__u64 now;

	if (own <= place)
		return 0;
	if (account->most_bytes && own - place > account->most_bytes)
		return BOUND_BYTES;
	if (!account->longest)
		return 0;
	now = bpf_ktime_get_coarse_ns();
	if (hold->mark <= place) {
		hold->mark = own;
		hold->marked = now;
	}
	return now - hold->marked > account->longest ? BOUND_TIME : 0;
}

/* The TCP header there. IPv6 extension headers may put it 16 KiB away. */
static __always_inline struct tcphdr *tcp_header(struct __sk_buff *skb, __u32 offset)
{
	struct tcphdr *th = (void *)(long)skb->data + (offset & 0x7fff);

	return (void *)(th + 1) > (void *)(long)skb->data_end ? NULL : th;
}

/* Where the TCP header begins that all of the first 20 bytes are there of; 0: there is none. Global functions,
 * this one and the next, are verified once, and not again with each way through their callers. */
__noinline int find_any_tcp(struct __sk_buff *skb, __u32 link)
{
	struct packet packet;
	struct cursor cur;
	int next;

	if (parse_packet(skb, link, &packet) || !packet.ip_version)
		return 0;
	cur = cursor_at_transport(skb, &packet, &next);
	if (next != IPPROTO_TCP || cur.pos + sizeof(struct tcphdr) > cur.end)
		return 0;
	return cur.offset;
}

/* As find_any_tcp, which is called for none but odd packets: nearly all have no tags, no options, no extension
 * headers, and all of their headers in one piece. */
static __always_inline __u32 find_tcp(struct __sk_buff *skb, enum link_layer link)
{
	void *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 network = link == LINK_RAW ? 0 : sizeof(struct ethhdr);
	struct ethhdr *eth = start;
	struct iphdr *ip4 = start + network;
	struct ipv6hdr *ip6 = start + network;
	__be16 protocol;

	if ((void *)(ip4 + 1) > end)
		return find_any_tcp(skb, link);
	protocol = link == LINK_RAW ? skb->protocol : eth->h_proto;
	if (protocol == bpf_htons(ETH_P_IP)) {
		if (ip4->version == 4 && ip4->ihl == 5 && ip4->protocol == IPPROTO_TCP &&
		    !(ip4->frag_off & bpf_htons(0x1fff)) &&
		    (void *)(ip4 + 1) + sizeof(struct tcphdr) <= end)
			return network + sizeof(*ip4);
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		if ((void *)(ip6 + 1) + sizeof(struct tcphdr) <= end && ip6->version == 6 &&
		    ip6->nexthdr == IPPROTO_TCP)
			return network + sizeof(*ip6);
	}
	return find_any_tcp(skb, link);
}

/* The ends of a packet in which find_tcp has found a header there. */
__noinline int find_ends(struct __sk_buff *skb, __u32 link, __u32 header, struct ends *ends)
{
	struct packet packet;
	struct tcphdr *th;

	if (!ends || parse_packet(skb, link, &packet) || !packet.ip_version)
		return PARSE_FAILED;
	th = tcp_header(skb, header);
	if (!th)
		return PARSE_FAILED;
	ends->here_port = th->source;
	ends->there_port = th->dest;
	if (packet.ip_version == 6) {
		ends->here = packet.source;
		ends->there = packet.destination;
	} else {
		ends->here.in6_u.u6_addr32[0] = packet.source.in6_u.u6_addr32[0];
		ends->there.in6_u.u6_addr32[0] = packet.destination.in6_u.u6_addr32[0];
	}
	return 0;
}

static __always_inline void forget(struct __sk_buff *skb, enum link_layer link, __u32 header)
{
	struct ends ends = {};

	if (!find_ends(skb, link, header, &ends))
		bpf_map_delete_elem(&leavers, &ends);
}

static __always_inline long remember(struct __sk_buff *skb, enum link_layer link, __u32 header,
				     const struct leaver *leaver)
{
	struct ends ends = {};

	return find_ends(skb, link, header, &ends)
		       ?: bpf_map_update_elem(&leavers, &ends, leaver, BPF_ANY);
}

static __always_inline int hold_to(struct __sk_buff *skb, enum link_layer link, struct bpf_sock *sk,
				   struct hold *hold)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);
	__u32 header, ack, seq, payload;
	struct account *account;
	struct tcphdr *th;
	__u64 own, place, reached;
	bool is_probe, is_fin;

	if (!tcp)
		return PASS_ON;
	header = find_tcp(skb, link);
	th = tcp_header(skb, header);
	if (!header || !th)
		goto unreadable;
	/* An RST ends everything, and promises nothing. */
	if (th->rst) {
		forget(skb, link, header);
		return PASS_ON;
	}
	/* What a connection begins with says nothing of data. */
	if (th->syn || !th->ack)
		return PASS_ON;
	is_fin = th->fin;
	ack = bpf_ntohl(th->ack_seq);
	seq = bpf_ntohl(th->seq);
	payload = skb->len - header - th->doff * 4;

	account = account_of(hold->slot, hold->generation);
	own = tcp->bytes_received - (__u32)(tcp->rcv_nxt - ack);
	place = allowed(account, hold->generation, hold->promised, own,
			has_fin(sk) ? tcp->bytes_received : 0);
	reached = account && !hold->is_released ? bound_reached(hold, account, own, place) : 0;
	if (reached) {
		if (account->is_released_at_bound) {
			hold->is_released = 1;
			reached |= BOUND_RELEASED;
		}
		*(volatile __u64 *)&account->reached = reached;
		COUNT(bounds);
	}
	if (hold->is_released && own > place)
		place = own;
	is_probe = account && account->is_probe_wanted && !payload && seq == tcp->snd_una - 1;

	if (is_leaving(sk) && (hold->is_released || (has_fin(sk) && place == own))) {
		/* Whatever the kernel says of it from now on may be said. */
		forget(skb, link, header);
	} else if (is_leaving(sk)) {
		struct leaver leaver = {
			.generation = hold->generation,
			.promised = place,
			.seen = bpf_ktime_get_coarse_ns(),
			.slot = hold->slot,
			.start = tcp->rcv_nxt - (__u32)tcp->bytes_received,
			.end = is_fin ? seq + payload + 1 : tcp->snd_nxt,
		};

		if (remember(skb, link, header, &leaver))
			goto failed;
	}
	if (move_ack(skb, header, ack, place - own))
		goto failed;
	/* The peer takes nothing from what is older than the sequence number that it waits for (RFC 9293,
	 * 3.10.7.4): a window probe that we asked for has to leave as a plain acknowledgement. Others stay as
	 * they are, because they want an answer. */
	if (is_probe) {
		if (put(skb, header, offsetof(struct tcphdr, seq), bpf_htonl(seq),
			bpf_htonl(tcp->snd_nxt)))
			goto failed;
		account->is_probe_wanted = 0;
		COUNT(probes);
	}
	hold->promised = place;
	if (account) {
		if (has_fin(sk))
			account->has_ended = 1;
		*(volatile __u64 *)&account->promised = place;
	}
	return PASS_ON;

unreadable:
	COUNT(unreadable);
	return DROP;
failed:
	COUNT(failed);
	return DROP;
}

/* What the kernel sends without a socket, for connections whose sockets it has given up. */
static __always_inline int hold_leaver(struct __sk_buff *skb, enum link_layer link)
{
	struct account *account;
	struct ends ends = {};
	struct leaver *leaver;
	struct tcphdr *th;
	__u64 own, place;
	__u32 header, ack, seq;

	header = find_tcp(skb, link);
	th = tcp_header(skb, header);
	if (!header || !th || th->syn || th->rst || !th->ack)
		return PASS_ON;
	ack = bpf_ntohl(th->ack_seq);
	seq = bpf_ntohl(th->seq);
	if (find_ends(skb, link, header, &ends))
		return PASS_ON;
	leaver = bpf_map_lookup_elem(&leavers, &ends);
	if (!leaver || leaver->end != seq)
		return PASS_ON;

	account = account_of(leaver->slot, leaver->generation);
	/* It is less than 2 GiB from there, as windows are. */
	own = leaver->promised + (__s32)(ack - leaver->start - (__u32)leaver->promised);
	place = allowed(account, leaver->generation, leaver->promised, own, own);
	if (move_ack(skb, header, ack, place - own)) {
		COUNT(failed);
		return DROP;
	}
	leaver->promised = place;
	leaver->seen = bpf_ktime_get_coarse_ns();
	if (account) {
		account->has_ended = 1;
		*(volatile __u64 *)&account->promised = place;
	}
	if (place == own) /* That was all. */
		bpf_map_delete_elem(&leavers, &ends);
	return PASS_ON;
}

static __always_inline bool is_watched(__u32 port)
{
	return watched[port / 64 & 1023] >> port % 64 & 1;
}

/* A connection in TIME-WAIT, or one that is about to begin; or the kernel's own socket, by which it answers for
 * connections that have none: its local port is the number of the protocol (that of raw sockets, user space
 * has it watched). */
static __always_inline bool is_given_up(struct bpf_sock *sk)
{
	if (sk->state == BPF_TCP_TIME_WAIT || sk->state == BPF_TCP_NEW_SYN_RECV)
		return true;
	if (sk->state != BPF_TCP_CLOSE || sk->src_port != IPPROTO_TCP)
		return false;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->protocol == IPPROTO_TCP && sk->type != SOCK_STREAM;
}

static __always_inline int hold_back_on(struct __sk_buff *skb, enum link_layer link)
{
	struct bpf_sock *sk = skb->sk;
	struct hold *hold;

	if (sk) {
		if (!is_watched(sk->src_port))
			return PASS_ON;
		/* It knows nothing of what is no full socket. */
		hold = bpf_sk_storage_get(&holds, sk, NULL, 0);
		/* What a listener is said to send (since 6.13) is for connections that have not begun: no data. */
		if (hold)
			return sk->state == BPF_TCP_LISTEN ? PASS_ON : hold_to(skb, link, sk, hold);
		if (!is_given_up(sk))
			return PASS_ON;
	} else if (skb->ingress_ifindex) {
		/* What passes through this host came in somewhere. */
		return PASS_ON;
	}
	/* Called once: the verifier reads it all again for each call. */
	return hold_leaver(skb, link);
}

SEC("tc")
int hold_back(struct __sk_buff *skb)
{
	return hold_back_on(skb, LINK_ETHERNET);
}

/* Its twin, for interfaces without an Ethernet header. */
SEC("tc")
int hold_back_raw(struct __sk_buff *skb)
{
	return hold_back_on(skb, LINK_RAW);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
