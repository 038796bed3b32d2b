// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { UNITS } from "../modules/units.js";
import { COLUMNS, DEFAULT, PERIODS, THEMES, TOPS, fromHash, hash } from "../modules/view.js";

test("what is chosen comes back from the hash", () => {
  const pick = (list, number) => list[number % list.length];
  for (let number = 0; number < 500; number += 1) {
    const view = {
      network: pick([null, "vxlan/10000", "gre/4294967295", "ipip/0"], number),
      hosts: pick([[], ["172.16.1.1"], ["172.16.1.0/24", "2001:db8::1", "::ffff:10.0.0.1"]], number >> 2),
      period: pick(PERIODS, number),
      unit: pick(UNITS, number >> 1),
      top: pick(TOPS, number >> 3),
      grouped: number % 2 === 1,
      search: pick(["", "10.0.0.0/8", "a&b=c#d%20 +é", "=1"], number >> 1),
      column: pick((number >> 2) % 3 === 0 ? COLUMNS.slice(1) : COLUMNS, number),
      ascending: (number & 4) > 0,
      stopped: (number & 8) > 0,
      theme: pick(THEMES, number >> 4),
    };
    assert.deepEqual(fromHash(hash(view)), view, hash(view));
  }
});

test("what is as by default is not said, and can be read where it is", () => {
  assert.equal(hash(DEFAULT), "");
  assert.deepEqual(fromHash(""), DEFAULT);
  assert.equal(hash({ ...DEFAULT, network: "vxlan/7", hosts: ["10.0.0.0/24", "::1"] }), "#network=vxlan/7&host=10.0.0.0/24&host=::1");
});

test("what only the inside is sorted by is left behind there", () => {
  const inside = { ...DEFAULT, hosts: ["10.0.0.1"], column: "network", ascending: true };
  assert.deepEqual(fromHash(hash({ ...inside, hosts: [] })), DEFAULT);
});

test("a hash that somebody has typed does no harm", () => {
  for (const text of ["#", "#&&=", "#network=<b>/1", "#network=vxlan/", "#host=x", "#host=1.2.3.4.5", "#period=soon", "#unit=__proto__", "#top=1e9",
    "#top=17", "#column=constructor", "#grouped=1", "#theme=no", "#%", "#%E0%A4%A"]) {
    assert.deepEqual(fromHash(text), DEFAULT, text);
  }
  assert.equal(fromHash(`#search=${"1".repeat(1000)}`).search.length, 64);
  assert.equal(fromHash(`#${Array.from({ length: 300 }, (_, i) => `host=10.0.${i >> 8}.${i & 255}`).join("&")}`).hosts.length, 64);
  assert.deepEqual(fromHash("#host=1.2.3.4&host=1.2.3.4/32&host=%201.2.3.4").hosts, ["1.2.3.4"]);
  assert.deepEqual(fromHash("#host=2001:DB8::A&host=2001:db8:0::a/128").hosts, ["2001:db8::a"]);
});
