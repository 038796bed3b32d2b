// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Labels around a circle: each as near to its arc as the others let it.

const TURN = 2 * Math.PI;

interface Crowd {
  /** Sum of what its members want, each less its distance from the first. */
  sum: number;
  count: number;
}

/**
 * Angles for labels that want to be at `wanted` (ascending, within one turn), at least `apart` from each other;
 * where the circle is too small for that, as far apart as it lets them.
 */
export function spread(wanted: readonly number[], apart: number): number[] {
  const count = wanted.length;
  if (count < 2) return [...wanted];
  const distance = Math.min(apart, TURN / count);
  // The circle is cut where there is most room, so that few want to go over the cut.
  let cut = 0;
  let room = -1;
  wanted.forEach((angle, index) => {
    const before = index > 0 ? (wanted[index - 1] ?? 0) : (wanted[count - 1] ?? 0) - TURN;
    if (angle - before > room) [cut, room] = [index, angle - before];
  });
  const line = wanted.map((_, index) => {
    const place = cut + index;
    return (wanted[place % count] ?? 0) + (place >= count ? TURN : 0);
  });
  // Those who are too near to each other form a crowd around what they want in the mean (pool adjacent violators).
  const crowds: Crowd[] = [];
  const start = (crowd: Crowd): number => crowd.sum / crowd.count;
  for (const angle of line) {
    crowds.push({ sum: angle, count: 1 });
    for (;;) {
      const last = crowds[crowds.length - 1];
      const before = crowds[crowds.length - 2];
      if (!last || !before || start(before) + before.count * distance <= start(last)) break;
      before.sum += last.sum - last.count * before.count * distance;
      before.count += last.count;
      crowds.pop();
    }
  }
  const placed = crowds.flatMap((crowd) => Array.from({ length: crowd.count }, (_, index) => start(crowd) + index * distance));
  // The last must not run into the first from behind.
  const fitting = placed.map((angle, index) => Math.min(angle, (placed[0] ?? 0) + TURN - (count - index) * distance));
  return wanted.map((angle, index) => {
    const found = fitting[(index - cut + count) % count] ?? 0;
    // The same place in another turn: a label must not go round to come to it.
    return found - TURN * Math.round((found - angle) / TURN);
  });
}
