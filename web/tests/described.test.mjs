// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { endLines, pairLines, ribbonLines } from "../modules/described.js";
import { matrix } from "../modules/matrix.js";
import { sendings } from "../modules/scene.js";

const end = (id) => ({ id, name: id.toUpperCase(), network: null, address: id });
const pair = (a, b, sent, received) => ({
  id: `${a} ${b}`,
  network: null,
  a: end(a),
  b: end(b),
  sent: { pkts: 1, bytes: sent },
  received: { pkts: 1, bytes: received },
});
const words = { name: (id) => id.toUpperCase(), unit: "bytes", seconds: 5, all: 1000 };
const pairs = [pair("a", "b", 300, 100), pair("a", "c", 50, 0), pair("d", "b", 100, 450)];
const figure = matrix(sendings(pairs, "bytes"), ["a", "b", "c"]);

test("who received is named, the louder direction first, with both shares", () => {
  const expected = ["B received 300 B from A: 75 % of what it received, 30 % of all", "A received 100 B from B: 100 % of what it received, 10 % of all"];
  assert.deepEqual(ribbonLines(figure, "a", "b", words), expected);
  assert.deepEqual(ribbonLines(figure, "b", "a", words), expected);
  assert.deepEqual(pairLines(pairs[0], pairs, words), expected);
});

test("a pair in other has its own figures in the table, and other's in the picture", () => {
  assert.match(pairLines(pairs[2], pairs, words)[0], /^D received 450 B from B: 100 % of what it received, 45 % of all$/);
  assert.match(ribbonLines(figure, "b", "other", words)[0], /^OTHER received 450 B from B/);
});

test("who talks to himself is told once", () => {
  const self = [pair("a", "a", 300, 100)];
  assert.deepEqual(pairLines(self[0], self, words), ["A received 400 B from A: 100 % of what it received, 40 % of all"]);
  assert.deepEqual(ribbonLines(matrix(sendings(self, "bytes"), ["a"]), "a", "a", words).length, 1);
  assert.deepEqual(endLines(matrix(sendings(self, "bytes"), ["a"]), "a", words), ["A: 40 % of all", "sent 400 B", "received 400 B"]);
});

test("an end sent and received", () => {
  assert.deepEqual(endLines(figure, "a", words), ["A: 45 % of all", "sent 350 B", "received 100 B"]);
});

test("of who is not drawn nothing is said, least of all what is other's", () => {
  assert.deepEqual(endLines(figure, "d", words), []);
  assert.deepEqual(ribbonLines(figure, "b", "d", words), []);
  assert.deepEqual(ribbonLines(figure, "gone", "b", words), []);
  assert.match(endLines(figure, "other", words)[0], /^OTHER/);
});
