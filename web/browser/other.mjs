// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 11: sixteen hosts of 200 and "other"; nothing is lost; networks in their place; a table of all.

import { strict as assert } from "node:assert";
import { browse, choose, rows, sampleOf, sums, textOf, until } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open("/#period=total&unit=packets", { viewport: { width: 1440, height: 800 } });
  await until("arcs", async () => (await page.locator("#chord .end").count()) === 17);
  assert.equal(await page.locator("#chord .end.other").count(), 1);

  // While samples come: what is drawn and what is not is all there is.
  for (let time = 0; time < 20; time += 1) {
    const { all, drawn, other, hidden, unlisted } = await sums(page);
    assert(drawn > 0 && other > 0);
    assert.equal(drawn + other + hidden + unlisted, all);
    await page.waitForTimeout(100);
  }
  await page.locator("#stop").click();
  const sample = await sampleOf(page);
  assert.match(await textOf(page, "#listed"), /^200 pairs/);

  // The table has every pair, as far as one scrolls.
  const seen = new Set();
  await until(
    () => `all of them: ${seen.size}`,
    async () => {
      for (const row of await rows(page)) seen.add(row[1]);
      // Rows come with the next frame.
      await page.locator("#scroller").evaluate((list) => {
        list.scrollBy(0, list.clientHeight / 2);
        return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      });
      return seen.size === 200;
    },
  );
  for (const row of sample.rows) assert(seen.has(row[3]), row[3]);
  await page.locator("#scroller").evaluate((list) => list.scrollTo(0, 0));

  // The wheel brings another row under a pointer that does not move: what is told is of that row.
  const box = await page.locator("#scroller").boundingBox();
  const [x, y] = [box.x + 60, box.y + 200];
  await page.mouse.move(x, y);
  const under = () => page.evaluate(([x, y]) => document.elementFromPoint(x, y).closest("tr").cells[1].textContent, [x, y]);
  const host = await under();
  await until("its figures", async () => (await textOf(page, "#tooltip")).includes(`${host} `));
  await page.mouse.wheel(0, 520);
  await until("another row", async () => (await under()) !== host);
  await until("the other row's figures", async () => (await textOf(page, "#tooltip")).includes(`${await under()} `));
  await page.mouse.move(2, 2);
  await page.locator("#scroller").evaluate((list) => list.scrollTo(0, 0));

  // Text can be marked, to be copied: that opens nothing.
  const cell = await page.locator("#pairs tr[data-pair] td").nth(1).boundingBox();
  await page.mouse.move(cell.x + 6, cell.y + 13);
  await page.mouse.down();
  await page.mouse.move(cell.x + 70, cell.y + 13, { steps: 5 });
  await page.mouse.up();
  assert.notEqual(await page.evaluate(() => String(getSelection())), "");
  assert.equal(await textOf(page, "#heading"), "Hosts");
  await page.evaluate(() => getSelection().removeAllRanges());

  // Sorted by any of its columns, both ways.
  const number = (text) => {
    const [, digits, prefix] = /^([\d.]+) ([kMGT]?)/.exec(text);
    return Number(digits) * { "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12 }[prefix];
  };
  const address = (text) => text.split(".").reduce((sum, part) => 256 * sum + Number(part), 0);
  for (const [column, index, value] of [["b", 1, address], ["sent", 2, number], ["received", 3, number], ["both", 4, number]]) {
    for (const click of [1, 2]) {
      await page.locator(`#pairs th button[data-column=${column}]`).click();
      const head = page.locator("#pairs th", { has: page.locator(`button[data-column=${column}]`) });
      const order = await head.getAttribute("aria-sort");
      assert(["ascending", "descending"].includes(order), `${column}, click ${click}: ${order}`);
      await page.mouse.move(2, 2);
      const values = (await rows(page)).slice(0, 20).map((row) => value(row[index]));
      const sorted = [...values].sort((a, b) => (order === "ascending" ? a - b : b - a));
      assert.deepEqual(values, sorted, `${column}, ${order}`);
    }
  }

  // Networks of 256 addresses in place of hosts.
  await choose(page, "input[name=grouped]");
  await until("three networks", async () => (await page.locator("#chord .end").count()) === 3);
  const names = (await page.locator("#chord .end text").allTextContents()).sort();
  assert.deepEqual(names, ["172.16.0.0/24", "172.16.1.0/24", "172.16.2.0/24"]);
  const { all, drawn } = await sums(page);
  assert.equal(drawn, all);
});
