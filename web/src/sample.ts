// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// /data/page.json as it comes: docs/tunnel_monitor.page.schema.json says what each member means.

export const SCHEMA = "netbpf.tunnel_monitor.page/1";

export interface Counts {
  readonly tx_pkts: number;
  readonly tx_bytes: number;
  readonly rx_pkts: number;
  readonly rx_bytes: number;
}

type Figures = [tx_pkts: number, tx_bytes: number, rx_pkts: number, rx_bytes: number];

/** A flow: what the schema calls its columns, in their order. Inner addresses are null where it is not IP. */
export type Row = readonly [
  vni: number,
  encap: string,
  outer_local: string,
  outer_remote: string,
  inner_local: string | null,
  inner_remote: string | null,
  ...window: Figures,
  ...since: Figures,
  ...total: Figures,
];

/** Where the figures of a row begin: of the window, of what came since it ended, and of all. */
export const WINDOW = 6;
export const SINCE = 10;
export const TOTAL = 14;
const COLUMNS = 18;

export interface Sample {
  readonly schema: string;
  readonly version: string;
  readonly run: string;
  readonly number: number;
  /** Milliseconds since 1970 by the monitor's clock, as `started` and the window's ends. */
  readonly time: number;
  readonly started: number;
  /** Seconds, as `interval` and the window's length. */
  readonly elapsed: number;
  readonly interval: number;
  readonly simulation: boolean;
  readonly namespace: string | null;
  readonly interfaces: readonly string[];
  readonly ports: readonly number[];
  readonly traffic: string | null;
  readonly window: { readonly from: number; readonly to: number; readonly seconds: number; readonly age: number };
  readonly flows: number;
  readonly capacity: number;
  readonly totals: Counts;
  readonly other: Counts;
  readonly forgotten: Counts;
  readonly forgotten_flows: number;
  readonly uncounted: {
    readonly fragments: number;
    readonly multicast: number;
    readonly malformed: number;
    readonly not_tunnel: number;
    readonly table_errors: number;
  };
  readonly rest: { readonly flows: number; readonly window: Counts; readonly since: Counts; readonly total: Counts };
  readonly rows: readonly Row[];
}

/** Members that are numbers; what the page adds up and divides must be. */
const NUMBERS: Record<string, string> = {
  "": "time started elapsed flows capacity",
  window: "from to seconds age",
  uncounted: "fragments malformed not_tunnel table_errors",
  rest: "flows",
};
const COUNTS = ["totals", "other", "forgotten", "rest.window", "rest.since", "rest.total"];
for (const name of COUNTS) NUMBERS[name] = "tx_pkts tx_bytes rx_pkts rx_bytes";

function isRow(row: unknown): boolean {
  return (
    Array.isArray(row) &&
    row.length >= COLUMNS &&
    row.every((cell, place) => {
      if (place === 0 || place >= WINDOW) return Number.isFinite(cell);
      return typeof cell === "string" || (cell === null && place > 3);
    })
  );
}

/** The document; undefined if it is none. What is half of one must not be drawn as if it were all. */
export function sample(document: unknown): Sample | undefined {
  const found = document as Partial<Sample> | null;
  if (found?.schema !== SCHEMA) return undefined;
  for (const [path, names] of Object.entries(NUMBERS)) {
    const steps = path === "" ? [] : path.split(".");
    const part = steps.reduce((at: unknown, step) => (at as Record<string, unknown> | null | undefined)?.[step], found);
    for (const name of names.split(" ")) if (!Number.isFinite((part as Record<string, unknown> | null | undefined)?.[name])) return undefined;
  }
  const { rows, interfaces, ports } = found;
  return [rows, interfaces, ports].every(Array.isArray) && rows?.every(isRow) ? (found as Sample) : undefined;
}
