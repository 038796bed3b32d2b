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

function counted(number: number, one: string, many: string): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

function passedBy({ uncounted }: Sample): string {
  const others = uncounted.not_tunnel;
  return others > 0 ? ` ${counted(others, "packet that is no tunnel’s has", "packets that are no tunnel’s have")} passed.` : "";
}

/** What stands in the place of the picture when there is nothing to draw; null: there is. */
export function empty(sample: Sample, view: View, { pairs, span, hosts }: Listing): Empty | null {
  if (pairs.length > 0) return null;
  if (bothWays(sample.totals).pkts === 0 && hosts.length === 0) {
    const at = `VXLAN is looked for at UDP port ${sample.ports.join(", ")}, Geneve, GRE and IP in IP where they always are.`;
    return {
      heading: sample.interfaces.length === 0 ? "No interface to watch yet" : `No tunnel packet yet on ${place(sample)}`,
      text: sample.traffic === null ? `${at}${passedBy(sample)}` : `To make traffic, type into another shell:`,
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
  const flows = counted(sample.flows, "flow is", "flows are");
  return { heading: "Quiet", text: `No tunnel packet passed ${when}. ${flows} known from before.${going}`, command: null };
}

/** What is missing in the figures. */
export function warnings(sample: Sample): string[] {
  const { other, uncounted, rest, capacity, flows } = sample;
  const found: string[] = [];
  const over = bothWays(other).pkts;
  if (over > 0) {
    found.push(
      `The table is full: ${counted(over, "packet is", "packets are")} in the total, but in no flow. ` +
        `There is room for ${counted(capacity, "flow", "flows")} (--max-entries).`,
    );
  } else if (flows >= capacity) {
    found.push(`The table is full: new flows will be counted in the total only. There is room for ${counted(capacity, "flow", "flows")} (--max-entries).`);
  }
  const faults: [number, string, string][] = [
    [uncounted.table_errors, "packet was not counted: its table refused it", "packets were not counted: their table refused them"],
    [uncounted.fragments, "outer fragment is not counted", "outer fragments are not counted"],
    [uncounted.malformed, "malformed packet is not counted", "malformed packets are not counted"],
  ];
  for (const [number, one, many] of faults) if (number > 0) found.push(`${counted(number, one, many)}.`);
  if (rest.flows > 0) {
    found.push(`${counted(rest.flows, "quieter flow is", "quieter flows are")} in the total only: the page gets the 10,000 loudest.`);
  }
  return found;
}

/** Above a picture that has grown old. */
export function failure(reason: string, age: number, hasPicture: boolean): string {
  return hasPicture
    ? `${reason} The picture is ${length(age / 1000)} old; asking again each second.`
    : `${reason} Nothing to show yet; asking again each second.`;
}
