// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { shortened } from "../modules/short_names.js";

test("what has room is as it is", () => {
  assert.deepEqual(shortened(["172.16.1.100", "other (3)"], 12), ["172.16.1.100", "other (3)"]);
});

test("names that differ still do", () => {
  const host = (middle, last) => `2001:db8:aaaa:${middle}:cccc:dddd:eeee:${last}`;
  const short = shortened([host("b001", "ff01"), host("b0b2", "ff02"), host("b0c3", "ff02"), "10.0.0.1"], 14);
  assert.equal(new Set(short).size, 4);
  for (const name of short) assert(name.length <= 14, name);
  assert.deepEqual(short, ["…db8:aaaa:b00…", "…db8:aaaa:b0b…", "…db8:aaaa:b0c…", "10.0.0.1"]);
});

test("where both ends tell them apart, both are shown", () => {
  assert.deepEqual(shortened(["0123456789", "abcdefghij"], 7), ["012…789", "abc…hij"]);
  assert.deepEqual(shortened(["fd00:ac10:1::100", "fd00:ac10:1::101"], 12), ["fd00:…1::100", "fd00:…1::101"]);
});
