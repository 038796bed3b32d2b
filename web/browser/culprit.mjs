// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The exercise of the README: one client sends much more than all others. The page names its host on top.

import { strict as assert } from "node:assert";
import { ask, browse, rows, say, until, untilRow } from "./harness.mjs";

const culprit = process.argv[3];
/** Milliseconds. */
const SOON = 10_000;

await browse(async ({ open }) => {
  const page = await open();
  await untilRow(page, "172.16.1.102");
  await ask("the usual traffic");
  const began = Date.now();
  const top = await until("somebody on top", async () => {
    const [first] = await rows(page);
    return first?.includes(culprit) && first;
  });
  const took = Date.now() - began;
  assert(took <= SOON, `after ${took} ms`);
  say(`after ${took} ms: ${top.join(" | ")}`);
  // The client itself is one click away.
  await page.locator("#pairs tbody tr[data-pair]").first().click();
  await until("the client", async () => {
    const [first] = await rows(page);
    return first?.some((cell) => /^192\.168\.\d\.4$/.test(cell));
  });
});
