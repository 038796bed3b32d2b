// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// What the page says in words: nothing yet, quiet, not everything counted, no answer.

import { bothWays, networkName, type Listing } from "./listing.js";
import type { Sample } from "./sample.js";
import { clock, length } from "./units.js";
import type { View } from "./view.js";

/** Where the monitor looks: "eth0 in host0". */
export function place({ interfaces, namespace }: Sample): string {
  const named = interfaces.length > 3 ? `${interfaces.slice(0, 3).join(", ")} and ${interfaces.length - 3} more` : interfaces.join(", ");
  const inside = namespace === null ? "" : ` in namespace ${namespace}`;
  return interfaces.length === 0 ? `no interface${inside}` : `${named}${inside}`;
}

export interface Empty {
  readonly heading: string;
  readonly text: string;
  /** A line to type into a shell. */
  readonly command: string | null;
}

/** "1,234". */
export function count(number: number): string {
  return number.toLocaleString("en");
}

/** What stands in the place of the picture when there is nothing to draw; null: there is. */
export function empty(sample: Sample, view: View, { pairs, span, hosts }: Listing): Empty | null {
  if (pairs.length > 0) return null;
  if (bothWays(sample.totals).pkts === 0 && hosts.length === 0) {
    const looked = `VXLAN is looked for at UDP port ${sample.ports.join(", ")}; Geneve, GRE and IP in IP too.`;
    const others = ` Packets that were no tunnel’s: ${count(sample.uncounted.not_tunnel)}.`;
    return {
      heading: sample.interfaces.length === 0 ? "No interface to watch yet" : `No tunnel packet yet on ${place(sample)}`,
      text: sample.traffic === null ? looked + others : "To make traffic, type into another shell:",
      command: sample.traffic,
    };
  }
  const when = `between ${clock(span.from)} and ${clock(span.to)}`;
  const chosen = [
    ...(view.network === null ? [] : [networkName(view.network)]),
    ...view.hosts,
    ...(view.search === "" ? [] : [`search “${view.search}”`]),
  ];
  const going = view.stopped ? "" : " Updates go on.";
  if (chosen.length > 0) {
    return { heading: `Quiet: ${chosen.join(", ")}`, text: `Nothing of it passed ${when}.${going}`, command: null };
  }
  const flows = `Flows known from before: ${count(sample.flows)}.`;
  return { heading: "Quiet", text: `No tunnel packet passed ${when}. ${flows}${going}`, command: null };
}

/** What is missing in the figures, a line each. */
export function warnings(sample: Sample): string[] {
  const { other, uncounted, rest, capacity, flows } = sample;
  const over = bothWays(other).pkts;
  const full = `The table is full, with room for ${count(capacity)} flows (--max-entries)`;
  const missing: [text: string, number: number, what: string][] = [
    [`${full}. In the total, but in no flow`, over, "packets"],
    ["Not counted, since their table refused them", uncounted.table_errors, "packets"],
    ["Not counted", uncounted.fragments, "outer fragments"],
    ["Not counted", uncounted.malformed, "malformed packets"],
    ["In the total only, beyond the 10,000 that a page gets", rest.flows, "quieter flows"],
  ];
  const found = missing.filter(([, number]) => number > 0).map(([text, number, what]) => `${text}: ${count(number)} ${number === 1 ? what.slice(0, -1) : what}.`);
  return over === 0 && flows >= capacity ? [`${full}: new flows will be counted in the total only.`, ...found] : found;
}

/** Above a picture that has grown old. */
export function failure(reason: string, age: number, hasPicture: boolean): string {
  return hasPicture
    ? `${reason} The picture is ${length(age / 1000)} old; asking again each second.`
    : `${reason} Nothing to show yet; asking again each second.`;
}
