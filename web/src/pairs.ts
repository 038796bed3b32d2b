// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// From flows to what is drawn: a square matrix of the loudest ends and one "other" for the rest.
// Nothing is lost on the way: the matrix adds up to the flows.

/** What one end sent to another. */
export interface Pair {
  readonly from: string;
  readonly to: string;
  readonly amount: number;
}

export interface Matrix {
  /** Ends in the order of the rows; the last is the rest when `rest` is not empty. */
  readonly ends: readonly string[];
  /** `cells[i][j]`: what end i sent to end j. */
  readonly cells: readonly (readonly number[])[];
  /** The ends that "other" stands for. */
  readonly rest: readonly string[];
}

/** The name of the last row, which stands for everyone in `rest`. */
export const OTHER = "other";

/** Sent and received, per end; what an end sends to itself counts once. */
export function volumes(pairs: readonly Pair[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { from, to, amount } of pairs) {
    sums.set(from, (sums.get(from) ?? 0) + amount);
    if (to !== from) sums.set(to, (sums.get(to) ?? 0) + amount);
  }
  return sums;
}

/**
 * The `top` loudest ends of `pairs`, each with a row of its own. Ends in `order` come first and keep
 * their places, so that an arc moves only when the user asks; new ones follow by volume, then by name.
 */
export function matrix(pairs: readonly Pair[], top: number, order: readonly string[] = []): Matrix {
  const sums = volumes(pairs);
  const loudest = [...sums].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).map(([end]) => end);
  const shown = new Set(loudest.slice(0, top));
  const kept = order.filter((end) => shown.has(end));
  const known = new Set(kept);
  const ends = [...kept, ...loudest.slice(0, top).filter((end) => !known.has(end))];
  const rest = loudest.slice(top);
  const row = new Map(ends.map((end, index) => [end, index]));
  const size = ends.length + (rest.length > 0 ? 1 : 0);
  const cells = Array.from({ length: size }, () => Array<number>(size).fill(0));
  for (const { from, to, amount } of pairs) {
    const cell = cells[row.get(from) ?? ends.length];
    const column = row.get(to) ?? ends.length;
    if (cell) cell[column] = (cell[column] ?? 0) + amount;
  }
  return { ends: rest.length > 0 ? [...ends, OTHER] : ends, cells, rest };
}

/**
 * Radians between arcs. All gaps together take a tenth of the circle at most: where they take all of it,
 * d3-chord has nothing left to draw and says nothing.
 */
export function gap(arcs: number): number {
  return Math.min(0.03, (0.1 * 2 * Math.PI) / Math.max(arcs, 1));
}
