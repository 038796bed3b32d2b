// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Who is shown, and in which order: nobody changes his place because the figures have changed.

/** Who is shown gives way only to one who is louder by this much, so that equals do not take turns. */
const STAYS = 1.25;
/** Places that are remembered for those who are not shown. */
const REMEMBERED = 1000;

export class Places {
  #places = new Map<string, number>();
  #shown = new Set<string>();
  #next = 0;

  /** Begins anew: the next order is by volume. */
  forget(): void {
    this.#places.clear();
    this.#shown.clear();
    this.#next = 0;
  }

  /** The loudest `top` of them in their order; new ones come last, the louder first, then by name. */
  arrange(volumes: ReadonlyMap<string, number>, top: number): string[] {
    const weight = (id: string, volume: number): number => (this.#shown.has(id) ? volume * STAYS : volume);
    const loudest = [...volumes]
      .map(([id, volume]) => [id, weight(id, volume)] as const)
      .sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
      .slice(0, top)
      .map(([id]) => id);
    this.#shown = new Set(loudest);
    for (const id of loudest) {
      if (!this.#places.has(id)) this.#places.set(id, this.#next++);
    }
    if (this.#places.size > REMEMBERED + top) {
      this.#places = new Map([...this.#places].filter(([id]) => this.#shown.has(id)));
    }
    return loudest.sort((a, b) => this.of(a) - this.of(b));
  }

  /** The number of its place: as long as it is remembered, it is the same. */
  of(id: string): number {
    return this.#places.get(id) ?? 0;
  }
}
