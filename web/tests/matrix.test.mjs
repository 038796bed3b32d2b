// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { chordDirected } from "d3-chord";
import { OTHER, gap, matrix, parts, volumes } from "../modules/matrix.js";

const sum = (cells) => cells.flat().reduce((all, amount) => all + amount, 0);

test("what is drawn and what is not add up to all of it", () => {
  const sendings = Array.from({ length: 200 }, (_, i) => ({ from: `a${i % 40}`, to: `b${i % 37}`, amount: i }));
  const total = sendings.reduce((all, { amount }) => all + amount, 0);
  const figure = matrix(sendings, ["a3", "b7", "a11"]);
  assert.equal(figure.ends.length, 4);
  assert.equal(figure.ends.at(-1), OTHER);
  assert.equal(figure.rest.length, 77 - 3);
  assert.equal(sum(figure.cells), total);
  const { drawn, other } = parts(figure);
  assert.equal(drawn + other, total);
  const between = sendings.filter(({ from, to }) => ["a3", "a11"].includes(from) && to === "b7");
  assert.equal(drawn, between.reduce((all, { amount }) => all + amount, 0));
});

test("nobody is other where all have a row", () => {
  const sendings = [
    { from: "quiet", to: "server", amount: 1 },
    { from: "loud", to: "server", amount: 1000 },
    { from: "itself", to: "itself", amount: 5 },
  ];
  assert.deepEqual(matrix(sendings, ["server", "loud"]).cells, [[0, 0, 0], [1000, 0, 0], [1, 0, 5]]);
  const all = matrix(sendings, ["server", "loud", "quiet", "itself"]);
  assert.deepEqual(all.rest, []);
  assert.deepEqual(parts(all), { drawn: 1006, other: 0 });
  assert.equal(volumes(sendings).get("itself"), 5);
  assert.equal(volumes(sendings).get("server"), 1001);
});

test("many arcs still draw", () => {
  const count = 1000;
  const cells = Array.from({ length: count }, (_, i) => Array.from({ length: count }, (_, j) => (j === (i + 1) % count ? 1 : 0)));
  const { groups } = chordDirected().padAngle(gap(count))(cells);
  assert.ok(groups.every(({ startAngle, endAngle }) => endAngle > startAngle));
  for (const arcs of [1, 2, 17, 65, 5000]) assert.ok(gap(arcs) * arcs < 0.11 * 2 * Math.PI, `${arcs} arcs`);
});
