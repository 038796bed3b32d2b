// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 13: an address, or a network of them, is found, also one that is in "other".

import { strict as assert } from "node:assert";
import { browse, rows, sums, textOf, until, untilRow } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open("/#period=total");
  await until("arcs", async () => (await page.locator("#chord .end").count()) === 17);
  const field = page.locator("input[name=search]");
  const drawn = () => page.locator("#chord .end text").allTextContents();
  // The quietest of all.
  const quiet = "172.16.2.101";
  assert(!(await drawn()).includes(quiet));
  await field.fill(quiet);
  await until("it alone", async () => (await rows(page)).length === 1);
  await untilRow(page, quiet);
  assert((await drawn()).includes(quiet));
  assert.match(await textOf(page, "#found"), /other/);
  assert((await sums(page)).hidden > 0, "the rest is said to be hidden");

  await field.fill("172.16.2.96/29");
  await until("a network", async () => (await rows(page)).length === 6);
  for (const row of await rows(page)) assert.match(row[1], /^172\.16\.2\.(9[6-9]|10[01])$/);
  // A screen reader is told how many there are with the search, and not again when there are others.
  const status = await textOf(page, "#status");
  assert.match(status, /Pairs found: 6\./);
  await page.evaluate(() => {
    window.said = 0;
    new MutationObserver(() => (window.said += 1)).observe(document.getElementById("status"), { childList: true, characterData: true, subtree: true });
  });
  await page.route("**/data/page.json*", async (route) => {
    const response = await route.fetch();
    const sample = await response.json();
    sample.rows = sample.rows.filter((row) => !JSON.stringify(row).includes('"172.16.2.99"'));
    await route.fulfill({ response, json: sample });
  });
  await until("one has gone", async () => /Pairs found: 5\./.test(await textOf(page, "#found")));
  await until("it is seconds ago", async () => (await rows(page)).length === 5);
  assert.equal(await page.evaluate(() => window.said), 0);
  await page.unroute("**/data/page.json*");

  // By what is inside, too.
  await field.fill("192.168.2.101");
  await until("who is inside", async () => (await rows(page)).length === 1);
  await untilRow(page, quiet);
  await field.fill("10.9.9.9");
  await until("nobody", async () => (await rows(page)).length === 0);
  assert(await page.locator("#empty").isVisible());
  await field.fill("10.9.9.9.9");
  await until("what is wrong", async () => /no address/.test(await textOf(page, "#found")));
  await field.fill("");
  await until("all again", async () => (await page.locator("#chord .end").count()) === 17);
});
