// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Paths of arcs and ribbons, as d3-shape's arc and d3-chord's ribbonArrow draw them, without what the page does not
// use of them (round corners, padding, contexts), which would be an eighth of all that it loads.

/** A point by its angle, clockwise from above, and its distance. */
function at(angle: number, distance: number): string {
  return `${(Math.sin(angle) * distance).toFixed(2)},${(-Math.cos(angle) * distance).toFixed(2)}`;
}

function turn(start: number, end: number, radius: number, clockwise: 0 | 1): string {
  return `A${radius},${radius},0,${Math.abs(end - start) > Math.PI ? 1 : 0},${clockwise},${at(end, radius)}`;
}

/** A piece of a ring. */
export function ring(start: number, end: number, inner: number, outer: number): string {
  return `M${at(start, outer)}${turn(start, end, outer, 1)}L${at(end, inner)}${turn(end, start, inner, 0)}Z`;
}

/** From one angle to another by the middle; where they are the same, as in a ribbon that comes back, by no way. */
function across(start: number, end: number, distance: number): string {
  return `${Math.abs(end - start) < 1e-6 ? "L" : "Q0,0,"}${at(end, distance)}`;
}

/**
 * From one piece of a circle to another, with a point of the length `head` at the second, in its middle: no broader
 * than long, so that a broad ribbon stays a ribbon.
 */
export function ribbon(angles: readonly number[], radius: number, head: number): string {
  const [s0 = 0, s1 = 0, t0 = 0, t1 = 0] = angles;
  const middle = (t0 + t1) / 2;
  const half = Math.min((t1 - t0) / 2, head / radius);
  const before = turn(t0, middle - half, radius - head, 1);
  const point = `${before}L${at(middle, radius)}L${at(middle + half, radius - head)}`;
  const after = turn(middle + half, t1, radius - head, 1);
  return `M${at(s0, radius)}${turn(s0, s1, radius, 1)}${across(s1, t0, radius - head)}${point}${after}${across(t1, s0, radius)}Z`;
}

/** From the middle of an arc to its label: in a spiral, which comes neither into the ring nor across another one. */
export function tick(arcAngle: number, labelAngle: number, from: number, to: number): string {
  const steps = Math.ceil(Math.abs(labelAngle - arcAngle) / 0.1) || 1;
  const points = Array.from({ length: steps + 1 }, (_, step) => {
    const part = step / steps;
    return at(arcAngle + (labelAngle - arcAngle) * part, from + (to - from) * part);
  });
  return `M${points.join("L")}`;
}
