// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 1: the original's two files, read by many at once while traffic passes, and where it has its page.

import { strict as assert } from "node:assert";
import { browse, until } from "./harness.mjs";

const FIELDS = ["vni", "outer_sip", "outer_dip", "inner_sip", "inner_dip", "tx_pkts", "tx_bytes", "rx_pkts", "rx_bytes"];
const READERS = 20;
const ROUNDS = 10;

await browse(async ({ open }) => {
  const page = await open("/demos/tunnel.html");
  assert.equal(new URL(page.url()).pathname, "/");
  assert.equal(await page.title(), "Tunnel Flows");

  const files = ["/data/tunnel.json", "/data/tunnel-delta.json"];
  const read = async (path) => {
    // Each parses what it got, or fails.
    const all = await page.evaluate(
      ([path, readers]) => Promise.all(Array.from({ length: readers }, async () => (await fetch(path)).json())),
      [path, READERS],
    );
    assert.equal(all.length, READERS);
    return all;
  };
  for (const path of files) {
    await until(`rows in ${path}`, async () => (await read(path))[0].length > 0);
  }
  let last = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const path of files) {
      for (const rows of await read(path)) {
        for (const row of rows) {
          assert.deepEqual(Object.keys(row).slice(0, FIELDS.length), FIELDS);
          for (const field of FIELDS) {
            const isAddress = /_[sd]ip$/.test(field);
            const isRight = isAddress ? /^[\d.]+$/.test(row[field]) : Number.isSafeInteger(row[field]);
            assert(isRight, `${field} of ${JSON.stringify(row)}`);
          }
        }
        if (path !== files[0]) continue;
        const sum = rows.reduce((sum, row) => sum + row.rx_bytes + row.tx_bytes, 0);
        assert(sum >= last || sum > 0, `${sum} bytes after ${last}`);
        last = Math.max(last, sum);
      }
    }
  }
});
