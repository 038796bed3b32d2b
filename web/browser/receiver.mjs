// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 3: who received is who received, whether the monitored host has the lower or the higher address.

import { strict as assert } from "node:assert";
import { browse, tooltip, until, untilRow } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open("/#period=total");
  for (const [here, there] of [
    ["192.0.2.1", "192.0.2.9"],
    ["192.0.2.20", "192.0.2.5"],
  ]) {
    // Only one way was anything sent, so the table has a figure and a nothing.
    const row = await untilRow(page, here, there);
    const [a, , sent, received] = row;
    const [fromHere, fromThere] = a === here ? [sent, received] : [received, sent];
    assert.match(fromHere, /^0 /, row.join(" | "));
    assert.doesNotMatch(fromThere, /^0 /, row.join(" | "));
    await page.locator("#pairs tbody tr", { hasText: here }).hover();
    const [first] = await until("the tooltip", async () => {
      const lines = await tooltip(page);
      return lines[0].includes(here) && lines;
    });
    assert(first.startsWith(`${here} received `) && first.includes(` from ${there}:`), first);
    assert.match(first, /100 % of what it received, 50 % of all/);
    await page.mouse.move(2, 2);
  }
});
