// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 4: the same inner address in two networks is two ends; what is not IP has no address.

import { strict as assert } from "node:assert";
import { browse, rows, until, untilRow } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open("/#host=192.0.2.9&period=total");
  await untilRow(page, "7", "10.77.0.1");
  await untilRow(page, "8", "10.77.0.1");
  const arcs = page.locator("#chord .end", { hasText: "10.77.0.1" });
  await until("two arcs", async () => (await arcs.count()) === 2);
  const names = (await arcs.locator("text").allTextContents()).sort();
  assert.notEqual(names[0], names[1], "which is which");
  await until("what is not IP", async () => (await rows(page)).some((row) => row[2].startsWith("not IP")));
  assert(!(await page.locator("body").innerText()).includes("0.0.0.0"));
});
