// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/* An empty program: what BPF_PROG_TEST_RUN itself costs, the floor of every figure in `make bench`. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("tc")
int empty(struct __sk_buff *skb)
{
	(void)skb;
	return -1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
