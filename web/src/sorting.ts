// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The order of the table's rows.

import { network } from "./address.js";
import type { End, Pair } from "./listing.js";
import { measure, plus, type Unit } from "./units.js";
import type { Column } from "./view.js";

const known = new Map<string, string>();

/** Text that sorts as addresses do: by family, then by number. Remembered, as they come back each second. */
function sortable(end: End): string {
  let text = known.get(end.name);
  if (text === undefined) {
    const net = network(end.name);
    text = net ? `${net.width === 32 ? 4 : 6} ${net.bits.toString(16).padStart(32, "0")}` : `9 ${end.name}`;
    if (known.size > 50_000) known.clear();
    known.set(end.name, text);
  }
  return text;
}

function compare(one: string | number, other: string | number): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

function numbered(id: string | null): number {
  return Number(id?.split("/")[1] ?? 0);
}

/** The pairs by a column; equal ones by who they are, so that they do not change places. */
export function sorted(pairs: readonly Pair[], column: Column, ascending: boolean, unit: Unit): Pair[] {
  const keys: Record<Column, (pair: Pair) => string | number> = {
    network: (pair) => numbered(pair.network),
    a: (pair) => sortable(pair.a),
    b: (pair) => sortable(pair.b),
    sent: (pair) => measure(pair.sent, unit),
    received: (pair) => measure(pair.received, unit),
    both: (pair) => measure(plus(pair.sent, pair.received), unit),
  };
  const key = keys[column];
  const sign = ascending ? 1 : -1;
  return pairs
    .map((pair) => ({ pair, key: key(pair) }))
    .sort((one, other) => sign * compare(one.key, other.key) || compare(one.pair.id, other.pair.id))
    .map(({ pair }) => pair);
}

/** The pairs in the order of `held`, as far as they are there; new ones come last, in their own order. */
export function inOrder(pairs: readonly Pair[], held: readonly string[]): Pair[] {
  const places = new Map(held.map((id, place) => [id, place]));
  const place = (pair: Pair): number => places.get(pair.id) ?? held.length;
  return [...pairs].sort((one, other) => place(one) - place(other));
}
