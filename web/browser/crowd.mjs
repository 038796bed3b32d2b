// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 19: ten tabs of one browser, while others hold 200 connections and stall. All tabs show what
// comes, and every packet of it.

import { strict as assert } from "node:assert";
import { ask, browse, sampleOf, until, untilRow } from "./harness.mjs";

const TABS = 10;
const ROUNDS = 5;
/** What each client sends in a round, and the size of a frame. */
const FRAMES = 10;
const BYTES = 148;

await browse(async ({ open }) => {
  const first = await open("/#host=192.0.2.9&period=total");
  const tabs = [first];
  while (tabs.length < TABS) {
    // Of the same browser: it makes six connections to one server, for all tabs.
    const tab = await first.context().newPage();
    await tab.goto(first.url());
    tabs.push(tab);
  }
  await ask("ten tabs are open");
  const began = await sampleOf(first);
  for (let round = 1; round <= ROUNDS; round += 1) {
    await ask(`round ${round}`);
    for (const tab of tabs) await untilRow(tab, `10.77.0.${round}`);
  }
  const packets = (FRAMES * ROUNDS * (ROUNDS + 1)) / 2;
  const ended = await until("every packet", async () => {
    const now = await sampleOf(first);
    return now.totals.rx_pkts === packets && now;
  });
  assert.equal(ended.totals.rx_bytes, packets * BYTES);
  assert.equal(ended.other.rx_pkts, 0);
  // A sample each second, whatever readers do: none was left out.
  const samples = ended.number - began.number;
  const seconds = ended.elapsed - began.elapsed;
  assert(Math.abs(samples - seconds) <= 1, `${samples} samples in ${seconds} s`);
});
