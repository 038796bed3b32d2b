// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { canonical, contains, network, slash24 } from "../modules/address.js";

test("addresses are in their networks and in no others", () => {
  const cases = [
    ["192.168.0.0/24", "192.168.0.255", true],
    ["192.168.0.0/24", "192.168.1.0", false],
    ["192.168.0.77/24", "192.168.0.1", true],
    ["0.0.0.0/0", "255.255.255.255", true],
    ["0.0.0.0/0", "::1", false],
    ["10.0.0.1", "10.0.0.1", true],
    ["10.0.0.1", "10.0.0.2", false],
    ["10.0.0.0/31", "10.0.0.2", false],
    ["2001:db8::/32", "2001:db8:ffff::1", true],
    ["2001:db8::/32", "2001:db9::1", false],
    ["::ffff:10.0.0.0/120", "::ffff:a00:7", true],
    ["10.0.0.0/8", "not IP", false],
  ];
  for (const [net, address, expected] of cases) {
    const parsed = network(net);
    assert.ok(parsed, net);
    assert.equal(contains(parsed, address), expected, `${address} in ${net}`);
  }
});

test("what is neither an address nor a network is refused", () => {
  for (const text of ["", "1.2.3", "1.2.3.4.5", "256.0.0.1", "010.0.0.1", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/8/8",
    ":", ":::", "1::2::3", "1:2:3:4::5:6:7:8::9", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8::", "g::", "12345::", "::/129", "::1.2.3"]) {
    assert.equal(network(text), undefined, JSON.stringify(text));
  }
});

test("an IPv4 address is grouped by its first three numbers", () => {
  assert.equal(slash24("192.168.3.77"), "192.168.3.0/24");
  assert.equal(slash24("2001:db8::1"), "2001:db8::1");
  assert.equal(slash24("not IP"), "not IP");
});

test("there is one spelling, that of the server", () => {
  const cases = [
    ["2001:DB8::A", "2001:db8::a"], ["2001:db8:0:0:0:0:0:a", "2001:db8::a"], [" 172.16.1.2 ", "172.16.1.2"], ["172.16.1.2/32", "172.16.1.2"],
    ["172.16.1.2/24", "172.16.1.0/24"], ["::1/128", "::1"], ["0:0:0:0:0:0:0:0", "::"], ["1:0:0:2:0:0:0:3", "1:0:0:2::3"], ["1:0:0:2:3:0:0:4", "1::2:3:0:0:4"],
    ["10:0:1:0:0:1:0:1", "10:0:1::1:0:1"], ["1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"], ["1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"], ["::FFFF:a00:1", "::ffff:10.0.0.1"],
    ["::/0", "::/0"], ["no", undefined],
  ];
  for (const [text, expected] of cases) assert.equal(canonical(text), expected, text);
});
