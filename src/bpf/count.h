/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Counts what happened in the program's map `events`: one `struct events` for each CPU. */
#ifndef NETBPF_COUNT_H
#define NETBPF_COUNT_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define COUNT(event)                                                         \
	do {                                                                 \
		__u32 zero = 0;                                              \
		struct events *counts = bpf_map_lookup_elem(&events, &zero); \
		if (counts)                                                  \
			counts->event += 1;                                  \
	} while (0)

#endif
