// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 5: a chosen network, and a chosen host, in which nothing passes any more. The page says so, keeps the
// choice, and goes on.

import { strict as assert } from "node:assert";
import { ask, browse, choose, sampleOf, say, textOf, until, untilRow } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open();
  await ask("both networks");
  await until("two networks", async () => (await page.locator("#networks input").count()) === 3);
  await choose(page, '#networks input[value="vxlan/7"]');
  await choose(page, '#hosts input[value="192.0.2.9"]');
  await until("the choice", () => page.locator('#hosts input[value="192.0.2.9"]').isChecked());
  await until("nothing of it is known any more", async () => (await sampleOf(page)).rows.length === 0);

  await page.locator("#empty").waitFor({ state: "visible" });
  const said = await page.locator("#empty").innerText();
  assert.match(said, /^Quiet: vxlan 7, 192\.0\.2\.9/);
  assert.match(said, /between \d\d:\d\d:\d\d and \d\d:\d\d:\d\d/);
  for (const input of ['#networks input[value="vxlan/7"]', '#hosts input[value="192.0.2.9"]']) {
    assert(await page.locator(input).isChecked(), `${input} is chosen no longer`);
  }
  // By keys: what is chosen no longer goes from the list, and leaves the focus to the picture.
  await page.locator('#hosts input[value="192.0.2.9"]').focus();
  await page.keyboard.press("Space");
  await until("it is gone", async () => (await page.locator("#hosts input").count()) === 0);
  assert.equal(await page.evaluate(() => document.activeElement?.id), "chord");
  await page.goBack();
  await until("the choice again", () => page.locator('#hosts input[value="192.0.2.9"]').isChecked());
  // It goes on: the time that it speaks of, and what comes next.
  const span = await textOf(page, "#span");
  await until("the time goes on", async () => (await textOf(page, "#span")) !== span);
  say("once more");
  await untilRow(page, "10.77.0.1");
  await page.locator("#empty").waitFor({ state: "hidden" });
});
