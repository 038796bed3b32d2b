/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What user space writes in order to wait (src/grace.rs): the kernel answers a change of a map of maps when
 * no program runs any more that has begun before it. */
#ifndef NETBPF_GRACE_H
#define NETBPF_GRACE_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct grace {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} grace SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct grace);
} grace_periods SEC(".maps");

#endif
