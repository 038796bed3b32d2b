// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 9: nothing yet, in the network that is built to try it: where it looks, and what to type; the test
// types it. A quiet time later reads differently.

import { strict as assert } from "node:assert";
import { ask, browse, textOf, until, untilRow } from "./harness.mjs";

const [, , , theInterface, namespace] = process.argv;

await browse(async ({ open }) => {
  const page = await open();
  await page.locator("#empty").waitFor({ state: "visible" });
  const nothing = await textOf(page, "#empty h3");
  assert(nothing.includes(theInterface) && nothing.includes(namespace), nothing);
  await ask(`type: ${await textOf(page, "#empty code")}`);
  await untilRow(page, "172.16.1.100");
  assert(await page.locator("#empty").isHidden());
  await ask("stop it");
  await page.locator("#empty").waitFor({ state: "visible" });
  await until("quiet", async () => /^Quiet$/.test(await textOf(page, "#empty h3")));
  assert.equal(await page.locator("#empty code").isVisible(), false);
});
