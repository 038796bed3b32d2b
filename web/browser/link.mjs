// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 14: all that was chosen is in the address; whoever opens it elsewhere sees the same.

import { strict as assert } from "node:assert";
import { browse, choose, rows, until, untilRow } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open();
  await untilRow(page, "172.16.1.2");
  await choose(page, '#networks input[value="vxlan/10000"]');
  await choose(page, '#hosts input[value="172.16.1.2"]');
  await choose(page, '#hosts input[value="172.16.1.4"]');
  await choose(page, "input[name=period][value=total]");
  await page.locator("select[name=unit]").selectOption("packets");
  await page.locator("select[name=top]").selectOption("8");
  await page.locator("select[name=theme]").selectOption("dark");
  await choose(page, "input[name=grouped]");
  await page.locator("input[name=search]").fill("192.168.0.0/16");
  await page.locator("#pairs th button[data-column=b]").click();
  await page.mouse.move(2, 2);
  await page.locator("#stop").click();

  const shown = (tab) =>
    tab.evaluate(() => {
      const chosen = [...document.querySelectorAll("input:checked")].map(({ name, value }) => `${name}=${value}`);
      const lists = [...document.querySelectorAll("select, input[type=search]")].map(({ name, value }) => `${name}=${value}`);
      const heads = [...document.querySelectorAll("#pairs th")].map((head) => head.getAttribute("aria-sort"));
      const arcs = [...document.querySelectorAll("#chord .end text")].map(({ textContent }) => textContent);
      return {
        chosen,
        lists,
        heads,
        arcs: arcs.sort(),
        heading: document.getElementById("heading").textContent,
        stop: document.getElementById("stop").textContent,
        theme: document.documentElement.dataset.theme,
      };
    });
  const mine = await shown(page);
  const hash = new URL(page.url()).hash;
  for (const part of ["vxlan/10000", "172.16.1.2", "172.16.1.4", "total", "packets", "top=8", "grouped", "192.168", "dark"]) {
    assert(decodeURIComponent(hash).includes(part), `${part} is not in ${hash}`);
  }

  // What is stopped is shown elsewhere too, as of now, and stays so.
  const other = await open(`/${hash}`);
  await until("rows", async () => (await rows(other)).length > 0);
  assert.deepEqual(await shown(other), mine);
  const span = await other.locator("#span").textContent();
  await other.waitForTimeout(2500);
  assert.equal(await other.locator("#span").textContent(), span);
  // The back button takes back what was chosen.
  await page.goBack();
  await until("one step back", async () => new URL(page.url()).hash !== hash);
  // But not what was set meanwhile.
  const { heading, ...back } = await shown(page);
  assert.notEqual(heading, mine.heading);
  assert.deepEqual([back.stop, back.theme], [mine.stop, mine.theme]);
  // A hash that somebody has typed does no harm.
  for (const odd of ["#network=<b>", "#host=x&host=1.2.3.4.5", "#top=1e9&period=no&column=__proto__", "#%", "#search=%00"]) {
    const tab = await open(`/${odd}`);
    await until("a page", async () => (await tab.locator("#heading").textContent()) !== "");
    await tab.close();
  }
});
