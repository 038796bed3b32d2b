// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 4: the same inner address in two networks is two ends; what is not IP has no address.

import { strict as assert } from "node:assert";
import { browse, until, untilRow } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open("/#host=192.0.2.9&period=total");
  await untilRow(page, "vxlan 7", "10.77.0.1");
  await untilRow(page, "vxlan 8", "10.77.0.1");
  const arcs = page.locator("#chord .end", { hasText: "10.77.0.1" });
  await until("two arcs", async () => (await arcs.count()) === 2);
  const names = (await arcs.locator("text").allTextContents()).sort();
  assert.notEqual(names[0], names[1], "which is which");
  await untilRow(page, "not IP at 192.0.2.9");
  assert(!(await page.locator("body").innerText()).includes("0.0.0.0"));
});
