// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// A figure in words: who received how much from whom, and how much of all that is.

import type { Pair } from "./listing.js";
import type { Matrix } from "./matrix.js";
import { measure, sayBoth, share, type Amount, type Unit } from "./units.js";

/** What there is beside the matrix to say it. */
export interface Words {
  name(end: string): string;
  readonly unit: Unit;
  readonly seconds: number;
  /** Measured: all that was counted, filtered out or not. */
  readonly all: number;
}

function sum(amounts: readonly number[]): number {
  return amounts.reduce((before, amount) => before + amount, 0);
}

function rowSum({ cells }: Matrix, end: number): number {
  return sum(cells[end] ?? []);
}

function columnSum({ cells }: Matrix, end: number): number {
  return sum(cells.map((row) => row[end] ?? 0));
}

/** One direction of a pair. */
interface Direction {
  readonly from: string;
  readonly to: string;
  readonly amount: number;
  /** What `to` received from everybody. */
  readonly ofAll: number;
}

/** The louder first. */
function directions(both: readonly Direction[], { name, unit, seconds, all }: Words): string[] {
  return [...both]
    .sort((one, other) => other.amount - one.amount)
    .map(({ from, to, amount, ofAll }) => {
      const shares = `${share(amount, ofAll)} of what it received, ${share(amount, all)} of all`;
      return `${name(to)} received ${sayBoth(amount, unit, seconds)} from ${name(from)}: ${shares}`;
    });
}

/** Both directions between two that are drawn; nothing where one is not: "other" has no other's name. */
export function ribbonLines(figure: Matrix, one: string, other: string, words: Words): string[] {
  const [i, j] = [figure.ends.indexOf(one), figure.ends.indexOf(other)];
  if (i < 0 || j < 0) return [];
  const direction = (from: number, to: number): Direction => ({
    from: figure.ends[from] ?? "",
    to: figure.ends[to] ?? "",
    amount: figure.cells[from]?.[to] ?? 0,
    ofAll: columnSum(figure, to),
  });
  return directions(i === j ? [direction(i, j)] : [direction(i, j), direction(j, i)], words);
}

/** Both directions of a pair, drawn or not. */
export function pairLines({ a, b, sent, received }: Pair, pairs: readonly Pair[], words: Words): string[] {
  const measured = (amount: Amount): number => measure(amount, words.unit);
  const receivedBy = (end: string): number =>
    sum(pairs.map((pair) => (pair.b.id === end ? measured(pair.sent) : 0) + (pair.a.id === end ? measured(pair.received) : 0)));
  const there = { from: a.id, to: b.id, amount: measured(sent), ofAll: receivedBy(b.id) };
  const back = { from: b.id, to: a.id, amount: measured(received), ofAll: receivedBy(a.id) };
  if (a.id === b.id) return directions([{ ...there, amount: there.amount + back.amount }], words);
  return directions([there, back], words);
}

/** What an end sent and received in all; nothing where it is not drawn. */
export function endLines(figure: Matrix, end: string, words: Words): string[] {
  const index = figure.ends.indexOf(end);
  if (index < 0) return [];
  const [sent, received] = [rowSum(figure, index), columnSum(figure, index)];
  const self = figure.cells[index]?.[index] ?? 0;
  const both = share(sent + received - self, words.all);
  const say = (amount: number): string => sayBoth(amount, words.unit, words.seconds);
  return [`${words.name(end)}: ${both} of all`, `sent ${say(sent)}`, `received ${say(received)}`];
}
