// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { Places } from "../modules/places.js";

const volumes = (object) => new Map(Object.entries(object));

test("the first order is by volume, and it stays when volumes change", () => {
  const places = new Places();
  assert.deepEqual(places.arrange(volumes({ a: 1, b: 9, c: 5 }), 16), ["b", "c", "a"]);
  assert.deepEqual(places.arrange(volumes({ a: 99, b: 1, c: 5, d: 1000 }), 16), ["b", "c", "a", "d"]);
  // Who was away comes back to where he was.
  assert.deepEqual(places.arrange(volumes({ a: 99, c: 5, d: 1000 }), 16), ["c", "a", "d"]);
  assert.deepEqual(places.arrange(volumes({ a: 99, b: 2, c: 5, d: 1000 }), 16), ["b", "c", "a", "d"]);
  assert.deepEqual(["b", "c", "a", "d"].map((id) => places.of(id)), [0, 1, 2, 3]);
  places.forget();
  assert.deepEqual(places.arrange(volumes({ a: 99, b: 2, c: 5, d: 1000 }), 16), ["d", "a", "c", "b"]);
});

test("equals do not take turns, but who is much louder comes in", () => {
  const places = new Places();
  places.arrange(volumes({ a: 100, b: 50, c: 49 }), 2);
  assert.deepEqual(places.arrange(volumes({ a: 100, b: 49, c: 51 }), 2), ["a", "b"]);
  assert.deepEqual(places.arrange(volumes({ a: 100, b: 49, c: 70 }), 2), ["a", "c"]);
});

test("whatever comes and goes: those who stay keep their order", () => {
  const places = new Places();
  let random = 7;
  const next = (limit) => (random = (random * 48271) % 2147483647) % limit;
  let before = [];
  for (let round = 0; round < 300; round += 1) {
    const now = places.arrange(new Map(Array.from({ length: 40 }, () => [`end ${next(3000)}`, next(1000)])), 16);
    const both = before.filter((id) => now.includes(id));
    assert.deepEqual(now.filter((id) => both.includes(id)), both, `round ${round}`);
    assert.equal(new Set(now.map((id) => places.of(id))).size, now.length, "one place each");
    before = now;
  }
});
