// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 16: everything by keys; the focus stays where it is while figures change; what a screen reader is told
// it is told once; who wants no motion gets none.

import { strict as assert } from "node:assert";
import { browse, rows, textOf, until, untilRow } from "./harness.mjs";

await browse(async ({ open }) => {
  const page = await open("/#period=total", { reducedMotion: "reduce" });
  await untilRow(page, "172.16.1.2");
  const focused = () => page.evaluate(() => document.activeElement?.id ?? "");
  const press = (key) => page.keyboard.press(key);

  // Tab leads to the picture, in a ring that can be seen.
  await until("the picture has the focus", async () => {
    await press("Tab");
    return (await focused()) === "chord";
  });
  const ring = await page.evaluate(() => {
    const chord = document.getElementById("chord");
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(chord);
    const active = chord.querySelector(".end.active path");
    return { outline: outlineStyle !== "none" && parseFloat(outlineWidth) > 0, boxShadow, active: active !== null };
  });
  assert(ring.outline || ring.boxShadow !== "none" || ring.active, JSON.stringify(ring));
  const active = () =>
    page.evaluate(() => {
      const id = document.getElementById("chord").getAttribute("aria-activedescendant");
      return id === null ? null : document.getElementById(id)?.dataset.end;
    });
  const ends = await page.locator("#chord .end").evaluateAll((all) => all.map(({ dataset }) => dataset.end));
  await press("Home");
  assert.equal(await active(), ends[0]);
  await press("ArrowRight");
  assert.equal(await active(), ends[1]);
  await press("ArrowLeft");
  assert.equal(await active(), ends[0]);
  await press("End");
  assert.equal(await active(), ends.at(-1));
  // With Alt or Ctrl a key is the browser's.
  await page.evaluate(() => addEventListener("keydown", (event) => (window.isTaken = event.defaultPrevented)));
  for (const key of ["Alt+Home", "Control+Home"]) {
    await press(key);
    assert.equal(await page.evaluate(() => window.isTaken), false, key);
    assert.equal(await active(), ends.at(-1));
  }
  await press("Home");
  await press("ArrowDown");
  assert.equal(await active(), ends[1]);
  assert(await page.locator("#tooltip").isVisible(), "what the pointer would be told");

  // Two samples later all is where it was, and nothing was said.
  await page.evaluate(() => {
    window.said = [];
    const live = document.querySelectorAll('[role=status], [role=alert], [aria-live]:not([aria-live=off])');
    for (const element of live) {
      new MutationObserver(() => window.said.push(element.textContent)).observe(element, { subtree: true, childList: true, characterData: true });
    }
  });
  const figures = JSON.stringify(await rows(page));
  await until("other figures", async () => JSON.stringify(await rows(page)) !== figures);
  const later = JSON.stringify(await rows(page));
  await until("other figures again", async () => JSON.stringify(await rows(page)) !== later);
  assert.equal(await focused(), "chord");
  assert.equal(await active(), ends[1]);
  assert.deepEqual(await page.evaluate(() => window.said), []);

  // Without motion each new shape is there at once.
  const shapes = await page.evaluate(
    () =>
      new Promise((resolve) => {
        const seen = new Map();
        new MutationObserver((changes) => {
          for (const { target } of changes) seen.set(target, (seen.get(target) ?? new Set()).add(target.getAttribute("d")));
        }).observe(document.getElementById("chord"), { subtree: true, attributes: true, attributeFilter: ["d"] });
        setTimeout(() => resolve(Math.max(0, ...[...seen.values()].map((each) => each.size))), 2500);
      }),
  );
  assert(shapes <= 4, `${shapes} shapes in 2.5 s`);

  await press("Enter");
  await until("inside", async () => (await textOf(page, "#heading")).startsWith("Inside"));
  assert.equal((await page.evaluate(() => window.said)).length, 1, "said once");
  await press("Escape");
  await until("back", async () => {
    if ((await textOf(page, "#heading")).startsWith("Hosts")) return true;
    await press("Escape");
    return false;
  });

  // The search, from anywhere.
  await press("/");
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("name")), "search");
  await page.keyboard.type("172.16.1.2/32");
  await until("one pair", async () => (await rows(page)).length === 1);
  await press("Escape");
  await until("all pairs", async () => (await rows(page)).length > 1);

  // The table.
  await until("the table has the focus", async () => {
    await press("Tab");
    return (await focused()) === "pairs";
  });
  const line = () => page.evaluate(() => document.querySelector("#pairs tr.active")?.dataset.pair ?? null);
  await press("Home");
  const first = await line();
  await press("ArrowDown");
  const second = await line();
  assert.notEqual(first, second);
  await press("End");
  const last = await line();
  assert(![first, second].includes(last));
  await press("ArrowUp");
  assert.notEqual(await line(), last);
  await press("Home");
  assert.equal(await line(), first);
  await press("Enter");
  await until("inside", async () => (await textOf(page, "#heading")).startsWith("Inside"));

  // A button that goes leaves the focus to the picture.
  await page.locator("#back").focus();
  await press("Enter");
  await until("back", async () => (await textOf(page, "#heading")).startsWith("Hosts"));
  assert.equal(await focused(), "chord");
});
