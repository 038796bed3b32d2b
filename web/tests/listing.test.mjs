// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { CASES } from "../browser/cases.mjs";
import { bothWays, listing, networkName, shortNetwork, span } from "../modules/listing.js";
import { SCHEMA, sample } from "../modules/sample.js";
import { Scenes } from "../modules/scene.js";
import { plus } from "../modules/units.js";
import { DEFAULT, PERIODS, TOPS } from "../modules/view.js";

const NOTHING = [0, 0, 0, 0];
const TOTAL = { ...DEFAULT, period: "total" };

/** A document with these rows; figures are of all time, with none in the window. */
function documentOf(...rows) {
  return { ...CASES.empty(12), rows: rows.map(([flow, total]) => [...flow, ...NOTHING, ...NOTHING, ...total]) };
}

const names = ({ pairs }) => pairs.map(({ a, b }) => [a.name, b.name]);

test("every case is a document, and half of one is none", () => {
  for (const [name, make] of Object.entries(CASES)) {
    for (const number of [0, 1, 5, 12, 38]) assert.ok(sample(make(number)), `${name}, ${number}`);
  }
  const whole = CASES["nine-hosts"](7);
  for (const part of ["schema", "rows", "window", "rest", "totals", "other", "forgotten", "uncounted", "interfaces"]) {
    assert.equal(sample({ ...whole, [part]: undefined }), undefined, part);
  }
  const { ports, ...portless } = whole;
  const textual = { ...whole, rows: whole.rows.map((row) => row.map(String)) };
  const nameless = { ...whole, rows: [whole.rows[0].map((cell, place) => (place === 2 ? null : cell))] };
  for (const wrong of [portless, textual, nameless, { ...whole, window: {} }, { ...whole, rest: {} }, { ...whole, time: "now" }, null, [], 7, "text", { schema: `${SCHEMA}0` }, { ...whole, rows: [...whole.rows, [1, 2]] }]) {
    assert.equal(sample(wrong), undefined, JSON.stringify(wrong)?.slice(0, 40));
  }
});

test("listed, hidden and unlisted are all there is, in each view of each case", () => {
  const views = [
    {},
    { network: "vxlan/10001" },
    { hosts: ["172.16.1.103"] },
    { hosts: ["172.16.1.103", "172.16.2.0/24"], grouped: true },
    { search: "10.0.0.0/28" },
    { search: "10002", hosts: ["172.16.0.0/12"] },
    { search: "no address", top: 8 },
    { unit: "packets", grouped: true },
  ];
  for (const [name, make] of Object.entries(CASES)) {
    const document = make(38);
    for (const period of PERIODS) {
      for (const part of views) {
        const view = { ...DEFAULT, period, ...part };
        const { listing: listed, sums } = new Scenes().make(document, view);
        const what = `${name}, ${JSON.stringify(view)}`;
        assert.equal(sums.drawn + sums.other + sums.hidden + sums.unlisted, sums.all, what);
        const inPairs = listed.pairs.reduce((all, { sent, received }) => plus(all, plus(sent, received)), { pkts: 0, bytes: 0 });
        assert.deepEqual(inPairs, listed.listed, what);
        assert.equal(new Set(listed.pairs.map(({ id }) => id)).size, listed.pairs.length, what);
      }
      if (period === "total" && name !== "quiet") {
        assert.deepEqual(listing(document, TOTAL).total, bothWays(document.totals), name);
      }
    }
  }
});

test("5,000 addresses are a figure of as many arcs as are asked for", () => {
  const document = CASES["5000-addresses"](38);
  for (const top of TOPS) {
    const { figure } = new Scenes().make(document, { ...DEFAULT, hosts: ["172.16.0.0/12"], top });
    assert.equal(figure.ends.length, top + 1);
    assert.equal(figure.ends.length - 1 + figure.rest.length, 10_000);
  }
});

test("who sent is this side, whichever outer address is higher", () => {
  for (const [local, remote] of [["172.16.1.1", "172.16.1.9"], ["172.16.1.9", "172.16.1.1"]]) {
    const { pairs } = listing(documentOf([[7, "vxlan", local, remote, "10.0.0.1", "10.0.0.2"], [1, 100, 3, 500]]), TOTAL);
    assert.deepEqual([pairs[0].a.name, pairs[0].b.name], [local, remote]);
    assert.deepEqual([pairs[0].sent, pairs[0].received], [{ pkts: 1, bytes: 100 }, { pkts: 3, bytes: 500 }]);
  }
});

test("a pair that is seen from both sides is one, and its name hangs on no order", () => {
  const flows = [
    [[7, "vxlan", "172.16.1.9", "172.16.1.1", "10.0.0.9", "10.0.0.1"], [1, 100, 3, 500]],
    [[7, "vxlan", "172.16.1.1", "172.16.1.9", "10.0.0.3", "10.0.0.4"], [10, 1000, 30, 5000]],
  ];
  const [one] = listing(documentOf(...flows), TOTAL).pairs;
  const [other, ...more] = listing(documentOf(...flows.toReversed?.() ?? [...flows].reverse()), TOTAL).pairs;
  assert.deepEqual(more, []);
  assert.deepEqual(one, other);
  assert.deepEqual([one.a.name, one.b.name], ["172.16.1.1", "172.16.1.9"]);
  assert.deepEqual([one.sent.bytes, one.received.bytes], [1500, 5100]);
});

test("the same inner address in two networks is two ends; what is not IP has a host and no address", () => {
  const document = documentOf(
    [[7, "vxlan", "172.16.1.1", "172.16.1.2", "10.0.0.1", "10.0.0.2"], [1, 100, 0, 0]],
    [[8, "vxlan", "172.16.1.1", "172.16.1.2", "10.0.0.1", "10.0.0.2"], [1, 100, 0, 0]],
    [[7, "gre", "172.16.1.1", "172.16.1.2", "10.0.0.1", "10.0.0.2"], [1, 100, 0, 0]],
    [[7, "vxlan", "172.16.1.1", "172.16.1.2", null, null], [1, 42, 1, 42]],
    [[7, "vxlan", "172.16.1.1", "172.16.1.2", "0.0.0.0", "10.0.0.2"], [1, 300, 0, 0]],
  );
  const { figure, words, listing: listed, ends } = new Scenes().make(document, { ...TOTAL, hosts: ["172.16.1.2"] });
  const drawn = figure.ends.map((end) => words.name(end));
  assert.equal(new Set(drawn).size, 9, drawn.join());
  for (const name of ["10.0.0.1 · 7", "10.0.0.1 · 8", "10.0.0.1 · gre 7", "not IP 172.16.1.1", "not IP 172.16.1.2", "0.0.0.0"]) {
    assert.ok(drawn.includes(name), `${name} in ${drawn.join(", ")}`);
  }
  assert.equal(listed.pairs.length, 5);
  assert.equal([...ends.values()].find(({ name }) => name === "not IP 172.16.1.1").address, null);
});

test("networks of 256 addresses take the place of their hosts", () => {
  const document = documentOf(
    [[7, "vxlan", "172.16.1.1", "172.16.1.2", "10.0.0.1", "10.0.1.2"], [1, 100, 2, 200]],
    [[7, "vxlan", "172.16.1.1", "172.16.2.2", "10.0.0.9", "10.0.1.7"], [4, 400, 8, 800]],
  );
  const hosts = listing(document, { ...TOTAL, grouped: true });
  assert.deepEqual(names(hosts), [["172.16.1.0/24", "172.16.1.0/24"], ["172.16.1.0/24", "172.16.2.0/24"]]);
  assert.deepEqual([hosts.pairs[0].sent.bytes, hosts.pairs[0].received.bytes], [100, 200]);
  const inside = listing(document, { ...TOTAL, grouped: true, hosts: ["172.16.2.0/24"] });
  assert.deepEqual(names(inside), [["10.0.0.0/24", "10.0.1.0/24"]]);
  assert.equal(inside.hidden.bytes, 300);
});

test("search finds outer and inner addresses, networks and VNIs", () => {
  const document = CASES["nine-hosts"](38);
  const found = (search) => names(listing(document, { ...TOTAL, search })).map(([, b]) => b);
  assert.deepEqual(found("172.16.1.107"), ["172.16.1.107"]);
  assert.deepEqual(found("192.168.3.9"), ["172.16.1.108"]);
  assert.deepEqual(found("192.168.2.0/24").sort(), ["172.16.1.101", "172.16.1.106"]);
  assert.deepEqual(found("10002").sort(), ["172.16.1.101", "172.16.1.106"]);
  assert.deepEqual(found("10.9.9.9"), []);
});

test("time: the interval, what came since, and all", () => {
  const document = CASES["nine-hosts"](12);
  const { window, started, time } = document;
  assert.deepEqual(span(document, "interval"), { from: window.from, to: window.to, seconds: 5 });
  assert.deepEqual(span(document, "now"), { from: window.from, to: time, seconds: 7 });
  assert.deepEqual(span(document, "total"), { from: started, to: time, seconds: 12 });
  // Before the first window has ended.
  assert.deepEqual(span(CASES["nine-hosts"](3), "now"), { from: started, to: started + 3000, seconds: 3 });
  // A clock that is set, by an hour back or on, changes neither lengths nor their order.
  for (const set of [-3_600_000, 3_600_000]) {
    const now = time + set;
    const after = { ...document, time: now };
    assert.deepEqual(span(after, "now"), { from: now - 7000, to: now, seconds: 7 });
    assert.deepEqual(span(after, "interval"), { from: now - 7000, to: now - 2000, seconds: 5 });
    assert.deepEqual(span(after, "total"), { from: now - 12_000, to: now, seconds: 12 });
  }
  const bytes = (period) => listing(document, { ...DEFAULT, period }).total.bytes;
  const ofRows = (from) => document.rows.reduce((all, row) => all + row[from + 1] + row[from + 3], 0);
  assert.equal(bytes("interval"), ofRows(6));
  assert.equal(bytes("now"), ofRows(6) + ofRows(10));
  assert.equal(bytes("total"), ofRows(14));
});

test("all networks and hosts are known, whatever is chosen and however quiet they are", () => {
  for (const name of ["nine-hosts", "quiet"]) {
    const { networks, hosts } = listing(CASES[name](38), { ...DEFAULT, network: "vxlan/10003", search: "1.2.3.4" });
    assert.equal(networks.length, 4);
    assert.equal(hosts.length, 9);
  }
  assert.deepEqual(["vxlan/10000", "ipip/0", "gre/7"].map(networkName), ["vxlan 10000", "ipip", "gre 7"]);
  assert.deepEqual(["vxlan/10000", "sit/0", "gre/7"].map(shortNetwork), ["10000", "sit", "gre 7"]);
});

test("one second after the other, nobody changes places", () => {
  const scenes = new Scenes();
  let before = [];
  for (let number = 10; number < 40; number += 1) {
    const { figure } = scenes.make(CASES["2000-addresses"](number), { ...DEFAULT, hosts: ["172.16.0.0/12"] });
    const both = before.filter((end) => figure.ends.includes(end));
    assert.deepEqual(figure.ends.filter((end) => both.includes(end)), both);
    if (number > 10) assert.ok(both.length >= 15, `${both.length} of 17 stay`);
    before = figure.ends;
  }
});
