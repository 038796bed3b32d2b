// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// What is typed into the search field: an address, a network of addresses, a VNI.

import { contains, network } from "./address.js";

/** Says of a flow whether it is looked for. */
export interface Search {
  readonly vni: number | undefined;
  /** Remembers its answers: the same few thousand addresses are asked for each second. */
  matches(address: string): boolean;
}

/** undefined: it is none of these. */
export function search(text: string): Search | undefined {
  const typed = text.trim();
  if (/^\d{1,10}$/.test(typed)) return { vni: Number(typed), matches: () => false };
  const net = network(typed);
  if (net === undefined) return undefined;
  const known = new Map<string, boolean>();
  return {
    vni: undefined,
    matches(address) {
      const before = known.get(address);
      if (before !== undefined) return before;
      const now = contains(net, address);
      known.set(address, now);
      return now;
    },
  };
}
