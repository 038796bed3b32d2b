// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { shortened } from "../modules/short_names.js";

test("what has room is as it is", () => {
  assert.deepEqual(shortened(["172.16.1.100", "other (3)"], 12), ["172.16.1.100", "other (3)"]);
});

test("names that differ still do", () => {
  const host = (middle) => `2001:db8:aaaa:${middle}:cccc:dddd:eeee:ff02`;
  const short = shortened([host("b001"), host("b0b2"), host("b0c3"), "10.0.0.1"], 14);
  assert.deepEqual(short, ["…01:cccc:dddd…", "…b2:cccc:dddd…", "…c3:cccc:dddd…", "10.0.0.1"]);
});

test("their ends stay where those differ", () => {
  assert.deepEqual(shortened(["fd00:ac10:1::100", "fd00:ac10:1::101"], 12), ["…ac10:1::100", "…ac10:1::101"]);
  assert.deepEqual(shortened(["a.example.net", "b.example.net"], 6), ["a.exa…", "b.exa…"]);
});

test("where they differ by too much, both ends are shown", () => {
  assert.deepEqual(shortened(["0123456789", "abcdefghij"], 7), ["012…789", "abc…hij"]);
  assert.deepEqual(shortened(["0123456789"], 7), ["012…789"]);
});
