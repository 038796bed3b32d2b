// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { CASES } from "../browser/cases.mjs";
import { listing } from "../modules/listing.js";
import { empty, failure, place, warnings } from "../modules/messages.js";
import { DEFAULT } from "../modules/view.js";

const said = (document, view = DEFAULT) => empty(document, view, listing(document, view));

test("nothing yet: where it looks, and what to type", () => {
  const simulation = said(CASES.empty(12));
  assert.match(simulation.heading, /^No tunnel packet yet on eth0 in namespace host0$/);
  assert.equal(simulation.command, "sudo ./target/release/tunnel_monitor traffic");
  const own = said({ ...CASES["empty-interface"](12), ports: [4789, 8472] });
  assert.equal(own.command, null);
  assert.match(own.heading, /eth0, <img src=x onerror=alert\(1\)>$/);
  assert.match(own.text, /4789, 8472.*no tunnel’s: 40\./);
  assert.match(said({ ...CASES.empty(12), interfaces: [] }).heading, /No interface/);
});

test("a quiet time reads differently, and what is chosen is named", () => {
  const quiet = said(CASES.quiet(38));
  assert.equal(quiet.heading, "Quiet");
  assert.match(quiet.text, /between \d\d:\d\d:\d\d and \d\d:\d\d:\d\d\. Flows known from before: 12\. Updates go on\.$/);
  assert.equal(quiet.command, null);
  const view = { ...DEFAULT, network: "vxlan/10001", hosts: ["172.16.1.103"], search: "10.0.0.1", stopped: true };
  const chosen = said(CASES["nine-hosts"](38), view);
  assert.equal(chosen.heading, "Quiet: vxlan 10001, 172.16.1.103, search “10.0.0.1”");
  assert.doesNotMatch(chosen.text, /Updates/);
  // All flows were forgotten, but something was there.
  assert.equal(said({ ...CASES.quiet(38), rows: [] }).heading, "Quiet");
  assert.equal(said(CASES["nine-hosts"](38)), null);
});

test("what is missing is told by its number", () => {
  assert.deepEqual(warnings(CASES["nine-hosts"](38)), []);
  assert.match(warnings(CASES.full(38)).join(), /room for 65,536 flows .*: 49,327 packets\./);
  assert.match(warnings({ ...CASES["nine-hosts"](38), flows: 7, capacity: 7 }).join(), /room for 7 flows .*new flows/);
  const uncounted = { fragments: 1, multicast: 5, malformed: 2, not_tunnel: 9, table_errors: 3 };
  const all = warnings({ ...CASES["nine-hosts"](38), uncounted, rest: { flows: 1234 } });
  assert.match(all.join(), /: 1 outer fragment\./);
  assert.deepEqual(all.map((line) => /: ([\d,]+) /.exec(line)[1]), ["3", "1", "2", "1,234"]);
});

test("where it looks, and how old a picture is", () => {
  const at = (interfaces, namespace) => place({ ...CASES.empty(1), interfaces, namespace });
  assert.equal(at(["a"], null), "a");
  assert.equal(at(["a", "b", "c", "d", "e"], "n"), "a, b, c and 2 more in namespace n");
  assert.equal(at([], "n"), "no interface in namespace n");
  assert.match(failure("Why.", 61_000, true), /^Why\. The picture is 61 s old/);
  assert.match(failure("Why.", 61_000, false), /Nothing to show/);
});
