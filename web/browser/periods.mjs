// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 6: the last interval or all, with the time that it is of, as bits, bytes or packets.

import { strict as assert } from "node:assert";
import { ask, browse, choose, sampleOf, textOf, until, untilRow } from "./harness.mjs";

const PACKETS = 1000;
const BYTES = 148_000;

/** In three digits, as the page writes figures. */
function written(value, unit) {
  let prefix = "";
  for (const next of ["k", "M"]) {
    if (value < 999.5) break;
    [value, prefix] = [value / 1000, next];
  }
  const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${Number.isInteger(value) && prefix === "" ? value : value.toFixed(digits)} ${prefix}${unit}`;
}

await browse(async ({ open }) => {
  const page = await open("/#period=total&unit=bytes");
  await ask("now");
  const both = async () => (await untilRow(page, "192.0.2.9")).at(-2);
  await until("all of them", async () => (await both()) === written(BYTES, "B"));
  const unit = (name) => page.locator("select[name=unit]").selectOption(name);
  await unit("packets");
  await until("packets", async () => (await both()) === written(PACKETS, "pkt"));

  // Of the interval; its length is known to the sample only.
  await choose(page, "input[name=period][value=interval]");
  const sample = await until("the interval has ended, and had it", async () => {
    const now = await sampleOf(page);
    return now.rows.some((row) => row[8] > 0) && now;
  });
  // It may have ended in the middle of them.
  const [packets, bytes] = sample.rows[0].slice(8, 10);
  // The next interval is 10 s away, so this one stays while we look; the page stops all the same.
  await until("the page has it", async () => (await both()) === written(packets, "pkt"));
  await page.locator("#stop").click();
  const { from, to, seconds } = sample.window;
  const clock = (time) =>
    page.evaluate((time) => new Date(time).toLocaleTimeString("en-GB", { hour12: false }), time);
  const span = await textOf(page, "#span");
  assert(span.startsWith(`${await clock(from)} – ${await clock(to)}`), `${span}: ${await clock(from)}, ${await clock(to)}`);
  for (const [name, figure] of [
    ["bit/s", written((8 * bytes) / seconds, "bit/s")],
    ["byte/s", written(bytes / seconds, "B/s")],
    ["packets/s", written(packets / seconds, "pkt/s")],
  ]) {
    await unit(name);
    await until(figure, async () => (await both()) === figure);
  }
  // Of the total it is the time since the start.
  await choose(page, "input[name=period][value=total]");
  const since = await clock(sample.started);
  await until("the start", async () => (await textOf(page, "#span")).startsWith(since));
});
