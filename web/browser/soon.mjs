// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 7: a packet is on the page within two seconds.

import { strict as assert } from "node:assert";
import { browse, say, told } from "./harness.mjs";

const CLIENTS = 5;
/** Milliseconds. */
const SOON = 2000;

await browse(async ({ open }) => {
  const page = await open("/#host=192.0.2.9");
  const took = [];
  for (let client = 1; client <= CLIENTS; client += 1) {
    const address = `10.77.0.${client}`;
    // The page itself notes when: to ask it again and again would cost time.
    const shown = page.evaluate(
      (address) =>
        new Promise((resolve) => {
          const look = () => document.querySelector("#pairs tbody")?.textContent.includes(address) && resolve(Date.now());
          new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
        }),
      address,
    );
    // Whenever it comes between two samples.
    await page.waitForTimeout(137 * client);
    say(`client ${client}`);
    const sent = Number(await told());
    took.push((await shown) - sent);
  }
  assert(Math.max(...took) <= SOON, `after ${took.join(", ")} ms`);
});
