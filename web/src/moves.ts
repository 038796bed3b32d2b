// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Where a key leads in a list.

/** With these it is the browser's: Alt and Left, for one, go back. */
export function isForBrowser({ altKey, ctrlKey, metaKey }: KeyboardEvent): boolean {
  return altKey || ctrlKey || metaKey;
}

/** The place among `count` to go to from `at` (-1: nowhere yet); undefined: the key is for something else. */
export function moved(key: string, at: number, count: number, page: number): number | undefined {
  const places: Record<string, number> = {
    ArrowDown: at + 1,
    ArrowRight: at + 1,
    ArrowUp: at < 0 ? count - 1 : at - 1,
    ArrowLeft: at < 0 ? count - 1 : at - 1,
    PageDown: Math.min(count - 1, at + page),
    PageUp: Math.max(0, at - page),
    Home: 0,
    End: count - 1,
  };
  const place = places[key];
  // Over an end it goes on at the other.
  return typeof place !== "number" || count === 0 ? undefined : (place + count) % count;
}
