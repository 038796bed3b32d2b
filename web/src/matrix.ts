// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// From pairs to what is drawn: a square matrix of the loudest ends and one "other" for the rest.
// Nothing is lost on the way: the matrix adds up to the pairs.

/** What one end sent to another. */
export interface Sending {
  readonly from: string;
  readonly to: string;
  readonly amount: number;
}

export interface Matrix {
  /** Ends in the order of the rows; the last is [`OTHER`] when `rest` is not empty. */
  readonly ends: readonly string[];
  /** `cells[i][j]`: what end i sent to end j. */
  readonly cells: readonly (readonly number[])[];
  /** The ends that "other" stands for. */
  readonly rest: readonly string[];
}

/** The name of the last row, which stands for everyone in `rest`. */
export const OTHER = "other";

/** Sent and received, per end; what an end sends to itself counts once. */
export function volumes(sendings: readonly Sending[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { from, to, amount } of sendings) {
    sums.set(from, (sums.get(from) ?? 0) + amount);
    if (to !== from) sums.set(to, (sums.get(to) ?? 0) + amount);
  }
  return sums;
}

/** A row for each of `ends`, in their order, and one for all others that send or receive. */
export function matrix(sendings: readonly Sending[], ends: readonly string[]): Matrix {
  const row = new Map(ends.map((end, index) => [end, index]));
  const rest = new Set<string>();
  for (const { from, to } of sendings) {
    for (const end of [from, to]) if (!row.has(end)) rest.add(end);
  }
  const size = ends.length + (rest.size > 0 ? 1 : 0);
  const cells = Array.from({ length: size }, () => Array<number>(size).fill(0));
  for (const { from, to, amount } of sendings) {
    const cell = cells[row.get(from) ?? ends.length];
    const column = row.get(to) ?? ends.length;
    if (cell) cell[column] = (cell[column] ?? 0) + amount;
  }
  return { ends: rest.size > 0 ? [...ends, OTHER] : ends, cells, rest: [...rest] };
}

/** What is in the matrix: between ends that are drawn, and with "other" at one end or both. */
export function parts({ cells, rest }: Matrix): { drawn: number; other: number } {
  const last = rest.length > 0 ? cells.length - 1 : cells.length;
  let [drawn, other] = [0, 0];
  cells.forEach((row, i) =>
    row.forEach((amount, j) => {
      if (i === last || j === last) other += amount;
      else drawn += amount;
    }),
  );
  return { drawn, other };
}

/**
 * Radians between arcs. All gaps together take a tenth of the circle at most: where they take all of it,
 * d3-chord has nothing left to draw and says nothing.
 */
export function gap(arcs: number): number {
  return Math.min(0.03, (0.1 * 2 * Math.PI) / Math.max(arcs, 1));
}
