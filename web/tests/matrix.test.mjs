// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { chordDirected } from "d3-chord";
import { OTHER, gap, matrix, volumes } from "../modules/pairs.js";

const sum = (cells) => cells.flat().reduce((all, amount) => all + amount, 0);

test("what is drawn and what is not add up to all of it", () => {
  const pairs = Array.from({ length: 200 }, (_, i) => ({ from: `a${i % 40}`, to: `b${i % 37}`, amount: i }));
  const total = pairs.reduce((all, { amount }) => all + amount, 0);
  const { ends, cells, rest } = matrix(pairs, 16);
  assert.equal(ends.length, 17);
  assert.equal(ends.at(-1), OTHER);
  assert.equal(rest.length, 77 - 16);
  assert.equal(sum(cells), total);
});

test("who is loudest has a row of its own, and nobody is other where all have room", () => {
  const pairs = [
    { from: "quiet", to: "server", amount: 1 },
    { from: "loud", to: "server", amount: 1000 },
    { from: "itself", to: "itself", amount: 5 },
  ];
  assert.deepEqual(matrix(pairs, 2).ends, ["server", "loud", OTHER]);
  assert.deepEqual(matrix(pairs, 2).cells, [[0, 0, 0], [1000, 0, 0], [1, 0, 5]]);
  assert.deepEqual(matrix(pairs, 4).rest, []);
  assert.equal(volumes(pairs).get("itself"), 5);
});

test("arcs keep their places when volumes change", () => {
  const before = matrix([{ from: "a", to: "b", amount: 9 }, { from: "c", to: "b", amount: 1 }], 16).ends;
  const after = matrix([{ from: "a", to: "b", amount: 1 }, { from: "c", to: "d", amount: 90 },
    { from: "c", to: "b", amount: 1 }], 16, before).ends;
  assert.deepEqual(after, [...before, "d"]);
});

test("5,000 arcs still draw", () => {
  const pairs = Array.from({ length: 5000 }, (_, i) => ({ from: `${i}`, to: `${(i + 1) % 5000}`, amount: 1 }));
  const { cells } = matrix(pairs, 5000);
  const { groups } = chordDirected().padAngle(gap(cells.length))(cells);
  assert.equal(groups.length, 5000);
  assert.ok(groups.every(({ startAngle, endAngle }) => endAngle > startAngle));
});
