// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * tokenbucket, whole, but for the exchanges that it loses to other CPUs: so many as the test says, and
 * without a second CPU and much luck.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

__u32 exchanges_to_lose;

static __always_inline __u64 exchange(__u64 *place, __u64 seen, __u64 next)
{
	if (exchanges_to_lose) {
		exchanges_to_lose--;
		return ~seen;
	}
	return __sync_val_compare_and_swap(place, seen, next);
}

#define __sync_val_compare_and_swap exchange
#include "tokenbucket.bpf.c"
