// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// What is typed into the search field: an address, a network, the beginning of an IPv4 address, a VNI.

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
  // "192.168." is on its way to an address, and means all that begin so.
  const begun = /^(\d{1,3}(?:\.\d{1,3}){0,2})(\.?)$/.exec(typed);
  const parts = begun?.[1]?.split(".") ?? [];
  const net = network(begun ? `${[...parts, "0", "0", "0"].slice(0, 4).join(".")}/${parts.length * 8}` : typed);
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
