// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, length, measure, say, sayBoth, share } from "../modules/units.js";

test("three digits, and never a thousand of something", () => {
  const cases = [
    [0, "0 B"], [7, "7 B"], [999, "999 B"], [999.4, "999 B"], [999.6, "1.00 kB"], [1000, "1.00 kB"], [1234, "1.23 kB"], [9994, "9.99 kB"],
    [9996, "10.0 kB"], [99_940, "99.9 kB"], [99_960, "100 kB"], [999_499, "999 kB"], [999_500, "1.00 MB"], [5e9, "5.00 GB"], [7.5e15, "7.50 PB"],
  ];
  for (const [bytes, text] of cases) assert.equal(say(bytes, "bytes", 1), text);
});

test("rates are by the second, amounts are not", () => {
  const amount = { pkts: 50, bytes: 6250 };
  const said = (unit, seconds) => say(measure(amount, unit), unit, seconds);
  assert.equal(said("bit/s", 5), "10.0 kbit/s");
  assert.equal(said("byte/s", 5), "1.25 kB/s");
  assert.equal(said("packets/s", 5), "10 pkt/s");
  assert.equal(said("bytes", 5), "6.25 kB");
  assert.equal(said("packets", 5), "50 pkt");
  assert.equal(said("bit/s", 0), "0 bit/s");
  assert.equal(sayBoth(50_000, "bit/s", 5), "10.0 kbit/s (6.25 kB)");
  assert.equal(sayBoth(50, "packets/s", 5), "10 pkt/s (50 pkt)");
  assert.equal(sayBoth(6250, "bytes", 5), "6.25 kB");
});

test("a share says neither nothing nor all where it is not", () => {
  const cases = [[0, 7, "0 %"], [1, 1000, "<1 %"], [1, 100, "1 %"], [1, 2, "50 %"], [995, 1000, ">99 %"], [7, 7, "100 %"], [7, 0, "0 %"]];
  for (const [part, whole, text] of cases) assert.equal(share(part, whole), text);
});

test("times", () => {
  assert.equal(clock(new Date(2026, 2, 4, 5, 6, 7).getTime()), "05:06:07");
  assert.deepEqual([0, 119.9, 120, 7199, 7200, 172_799, 172_800].map(length), ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
});
