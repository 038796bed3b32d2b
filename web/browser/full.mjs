// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 10: the table was full, and so many packets are in no flow.

import { strict as assert } from "node:assert";
import { browse, sampleOf, sums, textOf, until } from "./harness.mjs";

const [, , , packets, room] = process.argv;

await browse(async ({ open }) => {
  const page = await open("/#period=total&unit=packets");
  await until("the warning", async () => (await textOf(page, "#warnings")).includes(`${packets} packets`));
  assert(await page.locator("#warnings").isVisible());
  const warning = await textOf(page, "#warnings");
  assert(warning.includes(`room for ${room} flows`), warning);
  // And they are in the sum below the picture.
  const { all, drawn, other, hidden, unlisted } = await sums(page);
  assert.equal(unlisted, Number(packets.replaceAll(",", "")));
  assert.equal(drawn + other + hidden + unlisted, all);
  const { totals } = await sampleOf(page);
  assert.equal(all, totals.rx_pkts + totals.tx_pkts);
});
