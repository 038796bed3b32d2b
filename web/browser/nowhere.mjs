// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 9: nothing yet, on an interface of the user's: where it looks, and for what.

import { strict as assert } from "node:assert";
import { browse, textOf } from "./harness.mjs";

const [, , , theInterface, ports] = process.argv;

await browse(async ({ open }) => {
  const page = await open();
  await page.locator("#empty").waitFor({ state: "visible" });
  const heading = await textOf(page, "#empty h3");
  assert(heading.includes(`on ${theInterface}`), heading);
  assert((await textOf(page, "#empty p")).includes(ports), await textOf(page, "#empty p"));
  // There is no command that would make traffic here.
  assert.equal(await page.locator("#empty code").isVisible(), false);

  // Without scripts there is another page, which says it too.
  const plain = await open("/", { javaScriptEnabled: false });
  await plain.getByRole("link", { name: "plain table" }).click();
  assert.equal(new URL(plain.url()).pathname, "/plain");
  assert((await plain.locator("body").innerText()).includes(theInterface));
});
