// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 2: what the original's page does. Networks to choose from, hosts to look into by a click, several at
// once, each with a check box, a way back; stop and start; shares in the tooltip; fading; motion.

import { strict as assert } from "node:assert";
import { browse, choose, rows, sampleOf, sums, textOf, tooltip, until, untilRow } from "./harness.mjs";

/** Milliseconds in which a page that asks each second has asked again. */
const A_WHILE = 2500;

await browse(async ({ open }) => {
  const page = await open("/#period=total");
  const hash = () => page.evaluate(() => decodeURIComponent(location.hash));
  const checked = (list) =>
    page.evaluate((list) => [...document.querySelectorAll(`#${list} input:checked`)].map((input) => input.value), list);
  await untilRow(page, "172.16.1.101");
  await untilRow(page, "172.16.1.103");

  // Networks: all of them first.
  await until("four networks", async () => (await page.locator("#networks input[type=radio]").count()) === 5);
  assert.deepEqual(await checked("networks"), [""]);
  await choose(page, '#networks input[value="vxlan/10002"]');
  await until("one network", async () => (await sums(page)).hidden > 0);
  assert.match(await hash(), /network=vxlan\/10002/);
  const known = await sampleOf(page);
  const peers = new Set(known.rows.filter((row) => row[0] === 10002).map((row) => row[3]));
  for (const [, peer] of await rows(page)) assert(peers.has(peer), `${peer} is not in the network`);
  await choose(page, '#networks input[value=""]');
  await until("all networks", async () => (await sums(page)).hidden === 0);

  // A host, by a click on its arc.
  const arc = (name) => page.locator("#chord .end", { hasText: name }).locator("path.arc");
  await arc("172.16.1.101").click();
  await untilRow(page, "192.168.0.2");
  assert.deepEqual(await checked("hosts"), ["172.16.1.101"]);
  assert(!(await rows(page)).some((row) => row.includes("192.168.0.4")), "of a host that is not chosen");
  // Another one, by its check box; then the first no longer.
  await choose(page, '#hosts input[value="172.16.1.103"]');
  await untilRow(page, "192.168.0.4");
  await untilRow(page, "192.168.0.2");
  assert.deepEqual((await checked("hosts")).sort(), ["172.16.1.101", "172.16.1.103"]);
  await choose(page, '#hosts input[value="172.16.1.101"]');
  await until("one host less", async () => !(await rows(page)).some((row) => row.includes("192.168.0.2")));
  await untilRow(page, "192.168.0.4");
  await page.locator("#clear").click();
  await untilRow(page, "172.16.1.101");
  assert.deepEqual(await checked("hosts"), []);

  // A ribbon says both directions, each with its share of the receiver's and of all.
  const ribbon = page.locator('#chord path.ribbon[data-to$="172.16.1.103"], #chord path.ribbon[data-from$="172.16.1.103"]').first();
  const pointAtRibbon = () =>
    ribbon.evaluate((path) => {
      // A point that is surely inside: the browser knows the shape.
      const box = path.getBBox();
      for (let x = 0.05; x < 1; x += 0.05) {
        for (let y = 0.05; y < 1; y += 0.05) {
          const point = new DOMPoint(box.x + x * box.width, box.y + y * box.height);
          if (!path.isPointInFill(point)) continue;
          const { x: left, y: top } = point.matrixTransform(path.getScreenCTM());
          if (document.elementFromPoint(left, top) === path) return { x: left, y: top };
        }
      }
      return null;
    });
  const point = await until("a place on the ribbon", pointAtRibbon);
  await page.mouse.move(point.x, point.y);
  const lines = (await tooltip(page)).sort();
  assert.equal(lines.length, 2, lines.join("; "));
  for (const line of lines) {
    assert.match(line, /^172\.16\.1\.10\d received .+ from 172\.16\.1\.10\d: (<1|>99|\d+) % of what it received, (<1|>99|\d+) % of all$/);
  }
  assert.notEqual(lines[0].split(" ")[0], lines[1].split(" ")[0]);
  // The others fade.
  const opacity = (selector) =>
    page.evaluate((selector) => {
      const path = document.querySelector(selector);
      const { opacity, fillOpacity } = getComputedStyle(path);
      return Number(opacity) * Number(fillOpacity);
    }, selector);
  await until("the others fade", async () => (await opacity("#chord path.ribbon:not(.lit)")) < 0.5 * (await opacity("#chord path.ribbon.lit")));
  await page.mouse.move(2, 2);
  await page.locator("#tooltip").waitFor({ state: "hidden" });

  // Arcs come to their places in many small steps.
  await page.evaluate(() => {
    window.shapes = new Map();
    new MutationObserver((changes) => {
      for (const { target } of changes) {
        const seen = window.shapes.get(target) ?? new Set();
        window.shapes.set(target, seen.add(target.getAttribute("d")));
      }
    }).observe(document.getElementById("chord"), { subtree: true, attributes: true, attributeFilter: ["d"] });
  });
  await choose(page, '#networks input[value="vxlan/10000"]');
  await until("motion", () => page.evaluate(() => Math.max(0, ...[...window.shapes.values()].map((shapes) => shapes.size)) > 3));
  await choose(page, '#networks input[value=""]');

  // Stop and start.
  let questions = 0;
  page.on("request", (request) => (questions += request.url().endsWith("/data/page.json") ? 1 : 0));
  await page.locator("#stop").click();
  // What was asked for before may still come.
  await page.waitForTimeout(A_WHILE / 2);
  const before = [questions, await textOf(page, "#pairs tbody"), await textOf(page, "#span")];
  await page.waitForTimeout(A_WHILE);
  assert.deepEqual([questions, await textOf(page, "#pairs tbody"), await textOf(page, "#span")], before);
  await page.locator("#stop").click();
  await until("it asks again", () => questions > before[0] + 1);
  await until("it goes on", async () => (await textOf(page, "#span")) !== before[2]);
});
