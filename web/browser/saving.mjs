// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 15: PNG, SVG, JSON and CSV of what is shown, with its time and what it was filtered by.

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { browse, sampleOf, textOf, untilRow } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open("/#period=total&network=vxlan/10000&search=172.16.0.0/16", { acceptDownloads: true });
  await untilRow(page, "172.16.1.2");
  await page.locator("#stop").click();
  const count = Number.parseInt(await textOf(page, "#listed"), 10);
  assert.equal(count, 10);
  const saved = async (kind) => {
    const coming = page.waitForEvent("download");
    await page.locator(`[data-export=${kind}]`).click();
    const download = await coming;
    assert(download.suggestedFilename().endsWith(`.${kind}`), download.suggestedFilename());
    return readFileSync(await download.path());
  };
  const png = await saved("png");
  assert.equal(png.subarray(0, 8).toString("latin1"), "\x89PNG\r\n\x1a\n");
  const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
  assert(width >= 300 && height >= 300 && png.length > 5000, `${width} by ${height}, ${png.length} bytes`);

  const svg = (await saved("svg")).toString();
  assert.match(svg, /^(<\?xml[^>]*>\s*)?<svg[^>]* xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
  assert(!/<script|href="http|@import/.test(svg), "it needs nothing else");
  for (const words of ["vxlan 10000", "172.16.0.0/16"]) assert(svg.includes(words), `${words} is not in the picture`);
  assert.match(svg, /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^<]* to \d{4}-\d\d-\d\dT/);
  // A browser can draw it by itself.
  const draws = await page.evaluate(async (text) => {
    const image = new Image();
    image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    await image.decode();
    return image.naturalWidth;
  }, svg);
  assert(draws > 0);

  const json = JSON.parse((await saved("json")).toString());
  assert.equal(json.pairs.length, count);
  assert.equal(json.period, "total");
  assert.deepEqual([json.filters.network, json.filters.search], ["vxlan/10000", "172.16.0.0/16"]);
  const started = (await sampleOf(page)).started;
  assert.equal(Date.parse(json.from), started);
  assert(Date.parse(json.to) > started);

  const lines = (await saved("csv")).toString().trimEnd().split("\r\n");
  assert.equal(lines.length, count + 1);
  const head = lines[0].split(",");
  for (const [index, pair] of json.pairs.entries()) {
    const cells = Object.fromEntries(lines[index + 1].split(",").map((cell, place) => [head[place], cell]));
    assert.deepEqual([cells.a, cells.b, cells.from, cells.to], [pair.a, pair.b, json.from, json.to]);
    assert.deepEqual([cells.filter_network, cells.filter_search], ["vxlan/10000", "172.16.0.0/16"]);
    for (const figure of ["a_to_b_pkts", "a_to_b_bytes", "b_to_a_pkts", "b_to_a_bytes"]) {
      assert.equal(Number(cells[figure]), pair[figure]);
    }
  }

  // XML has no place for some letters; the picture is saved without them.
  await page.locator("[name=search]").fill("172.16.0.0\u0001");
  assert.equal((await saved("png")).subarray(1, 4).toString("latin1"), "PNG");
});
