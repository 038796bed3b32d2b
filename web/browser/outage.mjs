// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 8: the server hangs, is gone, answers with an error or with nonsense. The picture stays, its age is
// said, and all is well again by itself.

import { strict as assert } from "node:assert";
import { ask, browse, rows, sampleOf, textOf, until, untilRow } from "./harness.mjs";

/** Milliseconds until the user is told, and what a busy machine may add. */
const TOLD_WITHIN = 5000;

await browse(async ({ open, complaints }) => {
  const page = await open("/#host=192.0.2.9&period=total");
  await untilRow(page, "10.77.0.1");
  assert(await page.locator("#banner").isHidden());
  // The browser itself notes each request that came to nothing.
  complaints.expect(/^console: Failed to load resource/);

  const seconds = async () => {
    const found = /(\d+) s old/.exec(await textOf(page, "#banner"));
    return found && Number(found[1]);
  };
  const bannerComes = async (why, words) => {
    const began = Date.now();
    await page.locator("#banner").waitFor({ state: "visible" });
    const took = Date.now() - began;
    assert(took <= TOLD_WITHIN, `${why}: told after ${took} ms`);
    assert.match(await textOf(page, "#banner"), words, why);
    // It grows, and the picture is still there.
    const age = await until("an age", async () => (await seconds()) ?? undefined);
    await until("the age grows", async () => (await seconds()) > age);
    assert((await rows(page)).length > 0, `${why}: the table`);
    assert((await page.locator("#chord path.ribbon").count()) > 0, `${why}: the picture`);
  };
  const bannerGoes = async () => {
    await page.locator("#banner").waitFor({ state: "hidden" });
    assert((await rows(page)).length > 0);
  };

  const answers = [
    ["an error", { status: 500, body: "no" }, /HTTP 500/],
    ["half of it", { status: 200, body: '{"schema":"netbpf.tunnel_monitor.page/1","rows":[' }, /cannot be read/],
    ["nothing", { status: 200, body: "" }, /cannot be read/],
    ["something else", { status: 200, body: "[null]" }, /cannot be read/],
    ["rows that are none", { status: 200, body: JSON.stringify({ ...(await sampleOf(page)), rows: [1, []] }) }, /cannot be read/],
  ];
  for (const [why, answer, words] of answers) {
    await page.route("**/data/page.json", (route) => route.fulfill(answer));
    await bannerComes(why, words);
    await page.unroute("**/data/page.json");
    await bannerGoes();
  }

  // Also what is wrong with the page itself.
  await page.evaluate(() => (document.getElementById("sum-all").id = "gone"));
  await until("it says so", async () => /cannot draw/.test(await textOf(page, "#banner")));
  assert(await page.locator("#banner").isVisible());
  await page.evaluate(() => (document.getElementById("gone").id = "sum-all"));
  await bannerGoes();

  await ask("hang");
  await bannerComes("a server that hangs", /does not answer/);
  await ask("go on");
  await bannerGoes();

  await ask("end");
  await bannerComes("no server", /does not answer/);
  await ask("start again");
  await page.locator("#banner").waitFor({ state: "hidden" });
  await untilRow(page, "10.77.0.2");
  // The figures are of another run: what was counted before is gone.
  assert(!(await rows(page)).some((row) => row.includes("10.77.0.1")));
});
