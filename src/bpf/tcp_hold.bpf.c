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

/* The socket is held, and has no account yet: nothing is confirmed. A listener's sockets begin so. */
#define NO_SLOT 0xffffffffU

/* What a socket has with it, to its end; connections that a listener accepts begin with a copy of his. */
struct hold {
	__u32 slot;
	__u32 pad;
	__u64 generation; /* of the slot's account */
	__u64 promised;   /* how far this connection is acknowledged; never less than it was */
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
	__u64 unused[4];       /* a cache line for each */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* user space sets it */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct account);
} accounts SEC(".maps");

struct events {
	__u64 lowered;    /* acknowledgements */
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

/* How far may be acknowledged what the kernel itself acknowledges up to `own`: confirmed, but never less than
 * the peer was told before, and the FIN only with the last byte in front of it. */
static __always_inline __u64 allowed(const struct hold *hold, const struct account *account,
				     __u64 own, __u64 received, bool is_fin_received)
{
	__u64 confirmed = hold->promised;

	if (account)
		confirmed = *(volatile __u64 *)&account->confirmed;
	if (is_fin_received && confirmed + 1 >= received)
		confirmed = received;
	if (own > confirmed)
		own = confirmed;
	return own > hold->promised ? own : hold->promised;
}

static __always_inline int hold_to(struct __sk_buff *skb, enum link_layer link, struct bpf_sock *sk,
				   struct hold *hold)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);
	__u32 slot = hold->slot, header, ack, seq, payload;
	struct account *account;
	struct packet packet;
	struct cursor cur;
	struct tcphdr *th;
	__u64 own, place;
	bool is_probe;
	int next;

	if (!tcp)
		return PASS_ON;
	if (parse_packet(skb, link, &packet) || !packet.ip_version)
		goto unreadable;
	cur = cursor_at_transport(skb, &packet, &next);
	th = cur.pos;
	if (next != IPPROTO_TCP || (void *)(th + 1) > cur.end)
		goto unreadable;
	/* What a connection begins with says nothing of data; an RST ends everything, and promises nothing. */
	if (th->syn || th->rst || !th->ack)
		return PASS_ON;
	header = cur.offset;
	ack = bpf_ntohl(th->ack_seq);
	seq = bpf_ntohl(th->seq);
	payload = skb->len - header - th->doff * 4;

	account = bpf_map_lookup_elem(&accounts, &slot);
	if (account && account->generation != hold->generation)
		account = NULL;
	own = tcp->bytes_received - (__u32)(tcp->rcv_nxt - ack);
	place = allowed(hold, account, own, tcp->bytes_received, has_fin(sk));
	is_probe = account && account->is_probe_wanted && !payload && seq == tcp->snd_una - 1;

	if (place != own) {
		if (put(skb, header, offsetof(struct tcphdr, ack_seq), bpf_htonl(ack),
			bpf_htonl(ack + (__u32)(place - own))))
			goto failed;
		COUNT(lowered);
	}
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
	if (account)
		*(volatile __u64 *)&account->promised = place;
	return PASS_ON;

unreadable:
	COUNT(unreadable);
	return DROP;
failed:
	COUNT(failed);
	return DROP;
}

static __always_inline int hold_back_on(struct __sk_buff *skb, enum link_layer link)
{
	struct bpf_sock *sk = skb->sk;
	struct hold *hold;

	if (!sk)
		return PASS_ON;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return PASS_ON;
	hold = bpf_sk_storage_get(&holds, sk, NULL, 0);
	if (!hold)
		return PASS_ON;
	return hold_to(skb, link, sk, hold);
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
