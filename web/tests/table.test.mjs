// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { CASES } from "../browser/cases.mjs";
import { listing } from "../modules/listing.js";
import { search } from "../modules/search.js";
import { inOrder, sorted } from "../modules/sorting.js";
import { COLUMNS, DEFAULT } from "../modules/view.js";
import { csv, fileName, json } from "../modules/written.js";

const sample = CASES["200-hosts"](38);
const view = { ...DEFAULT, period: "total", hosts: ["172.16.0.0/12"] };
const listed = listing(sample, view);

test("rows are sorted by any column, both ways, and equal ones keep their places", () => {
  for (const column of COLUMNS) {
    const [up, down] = [true, false].map((ascending) => sorted(listed.pairs, column, ascending, "bytes"));
    assert.equal(up.length, listed.pairs.length);
    const again = sorted([...listed.pairs].reverse(), column, true, "bytes");
    assert.deepEqual(again.map(({ id }) => id), up.map(({ id }) => id), column);
    const figure = { sent: ({ sent }) => sent.bytes, received: ({ received }) => received.bytes, both: ({ sent, received }) => sent.bytes + received.bytes }[column];
    if (!figure) continue;
    for (let i = 1; i < up.length; i += 1) {
      assert.ok(figure(up[i - 1]) <= figure(up[i]), column);
      assert.ok(figure(down[i - 1]) >= figure(down[i]), column);
    }
  }
  const pair = (name) => ({ id: name, network: null, a: { name }, b: { name }, sent: { pkts: 0, bytes: 0 }, received: { pkts: 0, bytes: 0 } });
  const names = ["not IP 10.0.0.1", "2001:db8::1", "10.0.0.10", "10.0.0.9", "9.0.0.1", "10.0.0.0/24"];
  const order = sorted(names.map(pair), "a", true, "bytes").map(({ a }) => a.name);
  assert.deepEqual(order, ["9.0.0.1", "10.0.0.0/24", "10.0.0.9", "10.0.0.10", "2001:db8::1", "not IP 10.0.0.1"]);
});

test("an order that is held takes new rows at its end", () => {
  const held = inOrder([{ id: "a" }, { id: "new" }, { id: "b" }, { id: "newer" }], ["b", "gone", "a"]);
  assert.deepEqual(held.map(({ id }) => id), ["b", "a", "new", "newer"]);
});

test("what is searched for is an address, a network or a VNI", () => {
  for (const text of ["10.0.0.1", " 10.0.0.0/8 ", "::/0", "10000"]) assert.ok(search(text), text);
  for (const text of ["10.", "192.168.", "host0", "1.2.3.4/33", "-1", "1e3", "12345678901"]) assert.equal(search(text), undefined, text);
  assert.ok(search("10.0.0.0/8").matches("10.255.0.1"));
  assert.ok(!search("10.0.0.0/8").matches("11.0.0.1"));
  assert.equal(search("10").vni, 10);
});

test("JSON says what is in it: time, filters, sums and every pair", () => {
  const { pairs, ...about } = JSON.parse(json(sample, view, listed, listed.pairs));
  assert.equal(pairs.length, 800);
  assert.equal(Date.parse(about.from), sample.started);
  assert.equal(Date.parse(about.to), sample.time);
  assert.deepEqual(about.filters, { network: "all", hosts: "172.16.0.0/12", search: "", grouping: "none" });
  assert.equal(pairs.reduce((sum, { a_to_b_bytes, b_to_a_bytes }) => sum + a_to_b_bytes + b_to_a_bytes, 0), about.listed.bytes);
  assert.deepEqual(about.total, listed.total);
});

test("CSV has the same in each line, and no cell that a spreadsheet would run", () => {
  const text = csv({ ...view, search: '=1+1,"x"' }, listed, listed.pairs);
  const lines = text.trimEnd().split("\r\n");
  assert.equal(lines.length, 801);
  const columns = lines[0].split(",");
  assert.deepEqual(columns.slice(0, 3), ["from", "to", "seconds"]);
  assert.ok(lines.every((line) => line.includes(`"'=1+1,""x"""`) || line === lines[0]));
  const plain = csv(view, listed, listed.pairs).trimEnd().split("\r\n").map((line) => line.split(","));
  assert.ok(plain.every((cells) => cells.length === columns.length));
  const at = columns.indexOf("a_to_b_bytes");
  assert.deepEqual(plain.slice(1).map((cells) => Number(cells[at])), listed.pairs.map(({ sent }) => sent.bytes));
  assert.equal(csv(view, listed, []).split("\r\n").length, 2);
});

test("a file is named by its time", () => {
  const to = new Date(2026, 10, 28, 15, 5, 9).getTime();
  assert.equal(fileName({ ...listed, span: { from: 0, to, seconds: 1 } }, "csv"), "tunnels-2026-11-28-150509.csv");
});
