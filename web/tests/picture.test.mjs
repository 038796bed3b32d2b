// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { ribbonArrow } from "d3-chord";
import { arc } from "d3-shape";
import { moved } from "../modules/moves.js";
import { ribbon, ring, tick } from "../modules/shapes.js";
import { spread } from "../modules/spread.js";

const TURN = 2 * Math.PI;
const commands = (path) => path.replace(/[^A-Z]/g, "");
const figures = (path) => path.match(/-?\d+(\.\d+)?(e-?\d+)?/g).map(Number);

/** Both are the same but for what rounding does. */
function assertSame(path, expected) {
  assert.equal(commands(path), commands(expected));
  const [one, other] = [figures(path), figures(expected)];
  assert.equal(one.length, other.length);
  one.forEach((figure, index) => assert.ok(Math.abs(figure - other[index]) < 0.02, `${path} is not ${expected}`));
}

test("rings are those of d3-shape", () => {
  for (const [startAngle, endAngle] of [[0, 0.01], [0.5, 2], [3, 6.2], [6, 6.28]]) {
    const expected = arc()({ startAngle, endAngle, innerRadius: 90, outerRadius: 100 });
    assertSame(ring(startAngle, endAngle, 90, 100), expected);
  }
});

test("narrow ribbons are those of d3-chord", () => {
  for (const [s0, s1, t0, t1] of [[0, 0.1, 2, 2.1], [1, 1.05, 6, 6.1], [3, 3.2, 0.1, 0.2]]) {
    const expected = ribbonArrow().radius(100).headRadius(10)({
      source: { startAngle: s0, endAngle: s1 },
      target: { startAngle: t0, endAngle: t1 },
    });
    // Ours has two arcs of no length beside the point, where d3 has none.
    const drawn = ribbon([s0, s1, t0, t1], 100, 10).replace(/(Q0,0,([-\d.,]+))A[^L]*L/, "$1L").replace(/A10?0?90?,[^AQ]*(?=Q0,0,[-\d.,]+Z$)|A90,90[^Q]*(?=Q)/, "");
    assertSame(drawn, expected);
  }
});

test("a ribbon whose ends touch has no line to the middle and back", () => {
  assert.equal(commands(ribbon([0, 0.1, 2, 2.1], 100, 10)).match(/Q/g).length, 2);
  assert.equal(commands(ribbon([1, 2, 0, 1], 100, 10)).match(/Q/g).length, 1);
  assert.equal(commands(ribbon([0, 1, 1, 2], 100, 10)).match(/Q/g).length, 1);
});

test("the point of a broad ribbon is no broader than long", () => {
  const [, middle, after] = /L([-\d.]+,[-\d.]+)L([-\d.]+,[-\d.]+)A/.exec(ribbon([0, 0.1, 1, 4], 100, 10));
  const [x, y] = middle.split(",").map(Number);
  const [u, v] = after.split(",").map(Number);
  assert.ok(Math.hypot(x - u, y - v) < 15, `${middle} to ${after}`);
});

test("labels stay apart, in their order, and where they want to be when there is room", () => {
  assert.deepEqual(spread([], 0.1), []);
  assert.deepEqual(spread([1], 0.1), [1]);
  assert.deepEqual(spread([0.5, 1, 4], 0.1), [0.5, 1, 4]);
  const near = spread([1, 1.01, 1.02], 0.1);
  [0.91, 1.01, 1.11].forEach((angle, index) => assert.ok(Math.abs(near[index] - angle) < 1e-9, near.join()));
  let random = 99;
  const next = () => (random = (random * 48271) % 2147483647) / 2147483647;
  for (let round = 0; round < 400; round += 1) {
    const count = 2 + Math.floor(next() * 64);
    const crowd = next() < 0.5 ? 0.3 : TURN;
    const start = next() * (TURN - crowd);
    const wanted = Array.from({ length: count }, () => start + next() * crowd).sort((a, b) => a - b);
    const placed = spread(wanted, 0.08);
    const apart = Math.min(0.08, TURN / count);
    placed.forEach((angle, index) => {
      const after = placed[(index + 1) % count];
      const distance = (after - angle + 2 * TURN) % TURN;
      assert.ok(distance >= apart - 1e-9, `round ${round}: ${index} of ${count} at ${angle}, the next at ${after}`);
      assert.ok(Math.abs(angle - wanted[index]) < Math.PI + 1e-9, "it goes round");
    });
  }
});

test("keys lead from one to the next, and over an end to the other", () => {
  const go = (key, at) => moved(key, at, 5, 3);
  assert.deepEqual(["ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft"].map((key) => go(key, -1)), [0, 0, 4, 4]);
  assert.deepEqual(["ArrowDown", "ArrowUp", "Home", "End", "PageDown", "PageUp"].map((key) => go(key, 2)), [3, 1, 0, 4, 4, 0]);
  assert.deepEqual([go("ArrowDown", 4), go("ArrowUp", 0)], [0, 4]);
  assert.equal(go("Enter", 1), undefined);
  assert.equal(go("constructor", 1), undefined);
  assert.equal(moved("Home", -1, 0, 3), undefined);
});

test("a line to a label that stands elsewhere does not go through the ring", () => {
  for (const label of [0.01, 0.5, -1.2, 2.5]) {
    const points = tick(0, label, 101, 110).slice(1).split("L").map((point) => point.split(",").map(Number));
    assert.deepEqual(points[0], [0, -101]);
    const far = points.at(-1);
    assert(Math.abs(Math.hypot(...far) - 110) < 0.1, `${far}`);
    for (const [index, [x, y]] of points.slice(1).entries()) {
      const [before, above] = points[index];
      // In the middle of a straight piece it comes nearest.
      const nearest = Math.hypot((before + x) / 2, (above + y) / 2);
      assert(nearest > 100, `to ${label}: ${nearest} from the middle`);
    }
  }
});
