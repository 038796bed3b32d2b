// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 12: thousands of addresses. No task keeps the page for 100 ms of the processor's time, frames come,
// and arcs stay in their order until the user wants another one.

import { strict as assert } from "node:assert";
import { browse, sums, textOf, until } from "./harness.mjs";

const addresses = Number(process.argv[3]);
/** Milliseconds of a task of the page's own, and between two frames. */
const LONGEST_TASK = 100;
const FRAME = 34;
/** How long it is looked at: two intervals. */
const WHILE = 10_000;

/** Milliseconds of the processor's that each task of the tab took. How busy the machine is makes no difference. */
function tasks(trace) {
  const { traceEvents } = JSON.parse(trace);
  const renderers = new Set(
    traceEvents.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain").map(({ pid, tid }) => `${pid} ${tid}`),
  );
  assert(renderers.size > 0, "a trace without a tab");
  const found = traceEvents.filter(({ name, ph, pid, tid }) => name === "RunTask" && ph === "X" && renderers.has(`${pid} ${tid}`));
  return found.map(({ tdur }) => (tdur ?? 0) / 1000);
}

await browse(async ({ open, browser }) => {
  const page = await open("/#host=172.16.1.2&top=64");
  await until("arcs", async () => (await page.locator("#chord .end").count()) === 65);
  await until("every pair", async () => (await textOf(page, "#listed")).startsWith(`${(addresses / 2).toLocaleString("en")} pairs`));
  // d3-chord draws nothing, without a word, where gaps take all of the circle.
  const shapes = await page.locator("#chord path.arc").evaluateAll((paths) => paths.map((path) => path.getTotalLength()));
  assert(shapes.every((length) => length > 0), "arcs without a shape");
  assert((await page.locator("#chord path.ribbon").count()) > 0);

  const order = () => page.locator("#chord .end").evaluateAll((ends) => ends.map(({ dataset }) => dataset.end));
  const before = await order();
  await browser.startTracing(page, { categories: ["toplevel", "disabled-by-default-devtools.timeline"] });
  const frames = await page.evaluate(
    (duration) =>
      new Promise((resolve) => {
        const gaps = [];
        const began = performance.now();
        let last = began;
        const step = (now) => {
          gaps.push(now - last);
          last = now;
          if (now - began < duration) requestAnimationFrame(step);
          else resolve(gaps.slice(1));
        };
        requestAnimationFrame(step);
      }),
    WHILE,
  );
  const taken = tasks((await browser.stopTracing()).toString()).sort((a, b) => b - a);
  console.error(`${addresses} addresses: longest tasks ${taken.slice(0, 5).join(", ")} ms`);
  frames.sort((a, b) => a - b);
  const most = frames[Math.floor(0.95 * frames.length)];
  console.error(`95 % of ${frames.length} frames within ${most} ms`);
  assert(taken[0] <= LONGEST_TASK, `a task of ${taken[0]} ms`);
  assert(most <= FRAME, `95 % of frames within ${most} ms`);

  // The figures have changed ten times.
  assert.deepEqual(await order(), before, "arcs have changed places");
  const { all, drawn, other, hidden, unlisted } = await sums(page);
  assert.equal(drawn + other + hidden + unlisted, all);
});
