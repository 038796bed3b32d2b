// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Debian 12 has Node.js 18: a package that asks for more would refuse to run there.

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { test } from "node:test";

test("every package that is locked runs with Debian's Node.js", () => {
  const lock = JSON.parse(readFileSync(new URL("../package-lock.json", import.meta.url)));
  const asked = Object.entries(lock.packages).filter(([, { engines }]) => engines?.node !== undefined);
  assert(asked.length > 3);
  for (const [name, { engines }] of asked) {
    const [, least] = /^>=\s*(\d+)/.exec(engines.node) ?? [];
    assert(Number(least) <= 18, `${name} asks for Node.js ${engines.node}`);
  }
});
