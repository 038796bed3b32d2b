// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Everything that is shown of one sample in one view: picture and table are made from the same pairs.

import { listing, shortNetwork, type End, type Listing, type Pair } from "./listing.js";
import { matrix, OTHER, parts, volumes, type Matrix, type Sending } from "./matrix.js";
import { count } from "./messages.js";
import { Places } from "./places.js";
import type { Sample } from "./sample.js";
import { search } from "./search.js";
import { measure, type Unit } from "./units.js";
import type { View } from "./view.js";
import type { Words } from "./described.js";

export interface Scene {
  readonly listing: Listing;
  readonly figure: Matrix;
  readonly ends: ReadonlyMap<string, End>;
  readonly words: Words;
  /** Measured in the view's unit; drawn + other + hidden + unlisted = all. */
  readonly sums: {
    readonly all: number;
    readonly drawn: number;
    readonly other: number;
    readonly hidden: number;
    readonly unlisted: number;
  };
  /** What the search has found; empty where nothing is searched for. */
  readonly found: string;
}

export function sendings(pairs: readonly Pair[], unit: Unit): Sending[] {
  return pairs.flatMap(({ a, b, sent, received }) => [
    { from: a.id, to: b.id, amount: measure(sent, unit) },
    { from: b.id, to: a.id, amount: measure(received, unit) },
  ]);
}

/** What the order of arcs belongs to: in another choice there are others, so that order begins anew. */
function choice({ network, hosts, grouped, search: searched }: View): string {
  return JSON.stringify([network, hosts, grouped, searched]);
}

/** Remembers from sample to sample who has which place. */
export class Scenes {
  readonly #places = new Places();
  #choice = "";

  /** The next one has its arcs by volume. */
  reorder(): void {
    this.#places.forget();
  }

  /** Decides the colour of an end. */
  placeOf(end: string): number {
    return this.#places.of(end);
  }

  make(sample: Sample, view: View): Scene {
    if (choice(view) !== this.#choice) {
      this.#choice = choice(view);
      this.reorder();
    }
    const listed = listing(sample, view);
    const sent = sendings(listed.pairs, view.unit);
    const figure = matrix(sent, this.#places.arrange(volumes(sent), view.top));
    const ends = new Map<string, End>();
    for (const { a, b } of listed.pairs) ends.set(a.id, a).set(b.id, b);
    const all = measure(listed.total, view.unit);
    const words = { name: naming(figure, ends), unit: view.unit, seconds: listed.span.seconds, all };
    const [hidden, unlisted] = [measure(listed.hidden, view.unit), measure(listed.unlisted, view.unit)];
    const sums = { all, ...parts(figure), hidden, unlisted };
    return { listing: listed, figure, ends, words, sums, found: found(sample, view, listed, ends) };
  }
}

/** Names of ends; with their network where another network has the same address in the picture. */
function naming({ ends: drawn, rest }: Matrix, ends: ReadonlyMap<string, End>): (end: string) => string {
  const seen = new Map<string, number>();
  for (const id of drawn) {
    const name = ends.get(id)?.name;
    if (name !== undefined) seen.set(name, (seen.get(name) ?? 0) + 1);
  }
  return (id) => {
    if (id === OTHER) return `other (${rest.length})`;
    const end = ends.get(id);
    if (!end) return id;
    return end.network !== null && (seen.get(end.name) ?? 0) > 1 ? `${end.name} · ${shortNetwork(end.network)}` : end.name;
  };
}

function found(sample: Sample, view: View, { pairs }: Listing, ends: ReadonlyMap<string, End>): string {
  if (view.search === "") return "";
  if (!search(view.search)) return `“${view.search}” is no address, network or VNI: 192.168.0.1, 192.168.0.0/24, 10000`;
  const all = volumes(sendings(listing(sample, { ...view, search: "" }).pairs, view.unit));
  const drawn = new Set([...all].sort(([, x], [, y]) => y - x).slice(0, view.top).map(([id]) => id));
  const inOther = [...ends.keys()].filter((id) => !drawn.has(id)).length;
  return `Pairs found: ${count(pairs.length)}. Ends that were in “other”: ${count(inOther)}.`;
}
