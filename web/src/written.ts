// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// What is shown, as JSON and as CSV: every pair, of which time, and through which filters.

import type { Listing, Pair } from "./listing.js";
import type { Sample } from "./sample.js";
import { NOTHING } from "./units.js";
import type { View } from "./view.js";

function iso(time: number): string {
  return new Date(time).toISOString();
}

function filters(view: View): { network: string; hosts: string; search: string; grouping: string } {
  return {
    network: view.network ?? "all",
    hosts: view.hosts.join(" ") || "all",
    search: view.search,
    grouping: view.grouped ? "/24" : "none",
  };
}

function figures({ network, a, b, sent, received }: Pair): Record<string, string | number | null> {
  return {
    network,
    a: a.name,
    b: b.name,
    a_to_b_pkts: sent.pkts,
    a_to_b_bytes: sent.bytes,
    b_to_a_pkts: received.pkts,
    b_to_a_bytes: received.bytes,
  };
}

export function json(sample: Sample, view: View, listing: Listing, pairs: readonly Pair[]): string {
  const { span, inside, total, listed, hidden, unlisted } = listing;
  const document = {
    made_by: `tunnel_monitor ${sample.version}`,
    interfaces: sample.interfaces,
    namespace: sample.namespace,
    period: view.period,
    from: iso(span.from),
    to: iso(span.to),
    seconds: span.seconds,
    filters: filters(view),
    ends: inside ? "inner" : "outer",
    total,
    listed,
    hidden_by_filters: hidden,
    in_no_row: unlisted,
    pairs: pairs.map(figures),
  };
  return `${JSON.stringify(document, null, 1)}\n`;
}

/** RFC 4180. A spreadsheet takes what begins with one of =+-@ for a formula, so it gets an apostrophe. */
function cell(value: string | number | null): string {
  const text = String(value ?? "");
  const plain = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

/** Has all columns, where there is no pair to have them. */
const NOBODY: Pair = {
  id: "",
  network: null,
  a: { id: "", name: "", network: null, address: null },
  b: { id: "", name: "", network: null, address: null },
  sent: NOTHING,
  received: NOTHING,
};

/** CSV has no place for remarks, so each line says of which time it is and what it was filtered by. */
export function csv(view: View, { span }: Listing, pairs: readonly Pair[]): string {
  const { network, hosts, search, grouping } = filters(view);
  const about = {
    from: iso(span.from),
    to: iso(span.to),
    seconds: Number(span.seconds.toFixed(3)),
    filter_network: network,
    filter_hosts: hosts,
    filter_search: search,
    grouping,
  };
  const lines = pairs.map((pair) => ({ ...about, ...figures(pair) }));
  const columns = Object.keys({ ...about, ...figures(NOBODY) });
  return [columns, ...lines.map(Object.values)].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

/** "tunnels-2026-11-28-151500.csv", by the monitor's clock in this browser's time zone. */
export function fileName({ span }: Listing, ending: string): string {
  const date = new Date(span.to);
  const two = (part: number): string => String(part).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `tunnels-${day}-${two(date.getHours())}${two(date.getMinutes())}${two(date.getSeconds())}.${ending}`;
}
