// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// What the scripts of this folder stand on: a browser of their own, whose every complaint is a failure.
// tests/tunnel_monitor_page.rs starts them, one for each point, in a network of its own:
//
//     node SCRIPT URL
//
// They talk with the test by lines: `say` tells it where they are, `told` waits for its answer.

import { strict as assert } from "node:assert";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

/** More than any step takes on a busy machine; nothing waits for it to pass. */
export const WITHIN = 30_000;

const FLAGS = [
  "--disable-background-networking",
  "--disable-component-update",
  // Containers have 64 MB of shared memory.
  "--disable-dev-shm-usage",
  "--disable-gpu",
  "--disable-quic",
  "--disable-sync",
  "--no-first-run",
];

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Tells the test. */
export function say(line) {
  process.stdout.write(`${line}\n`);
}

/** The next line of the test's. */
export async function told() {
  const { value, done } = await answers.next();
  assert(!done, "the test has gone");
  return value;
}

/** Tells the test, and waits until it has done its part. */
export async function ask(line) {
  say(line);
  return await told();
}

/** Waits until `look` finds something, and returns that. `what` may be made when it is too late. */
export async function until(what, look) {
  const deadline = Date.now() + WITHIN;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert(Date.now() < deadline, `never: ${typeof what === "function" ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The rows of the table of pairs, a list of the cells' text each. */
export function rows(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll("#pairs tbody tr[data-pair]")].map((row) => [...row.cells].map((cell) => cell.textContent)),
  );
}

/** Waits until a row of the table has these words, each as a whole cell. */
export async function untilRow(page, ...cells) {
  let last = [];
  const look = async () => {
    last = await rows(page);
    return last.find((row) => cells.every((cell) => row.includes(cell)));
  };
  return await until(() => `a row with ${cells.join(", ")} among ${JSON.stringify(last.slice(0, 20))}`, look);
}

/** What stands beside the pointer, by lines. */
export async function tooltip(page) {
  await page.locator("#tooltip").waitFor({ state: "visible" });
  return (await page.locator("#tooltip").textContent()).split("\n");
}

/** The text of an element, without what is around it. */
export async function textOf(page, selector) {
  return (await page.locator(selector).first().textContent())?.trim() ?? "";
}

/** The figures below the picture: of all, drawn, in "other", filtered out, in no flow. */
export function sums(page) {
  return page.evaluate(() => {
    const value = (name) => Number(document.getElementById(`sum-${name}`).value);
    return { all: value("all"), drawn: value("drawn"), other: value("other"), hidden: value("hidden"), unlisted: value("unlisted") };
  });
}

/** Lets a radio or a check box be chosen as a user does, by its label. */
export async function choose(page, selector) {
  await page.locator(selector).locator("xpath=ancestor::label").click();
}

/** The document that the page draws. */
export function sampleOf(page) {
  return page.evaluate(async () => (await fetch("/data/page.json", { cache: "no-store" })).json());
}

/** What a browser complained of. Some is expected where a test breaks things. */
class Complaints {
  #found = [];
  #expected = [];

  expect(pattern) {
    this.#expected.push(pattern);
  }

  add(text) {
    this.#found.push(text);
  }

  assertNone() {
    const unexpected = this.#found.filter((text) => !this.#expected.some((pattern) => pattern.test(text)));
    assert.deepEqual(unexpected, [], "the browser complained");
  }
}

/** Whatever a tab says, asks for or is refused is looked at. */
async function watch(page, origin, complaints) {
  page.setDefaultTimeout(WITHIN);
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.add(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.add(`exception: ${error.stack ?? error}`));
  page.on("crash", () => complaints.add("the tab crashed"));
  page.on("request", (request) => {
    const url = new URL(request.url());
    const isOwn = url.origin === origin || url.protocol === "data:" || url.protocol === "blob:";
    if (!isOwn) complaints.add(`a request leaves the origin: ${url}`);
  });
  await page.exposeFunction("reportViolation", (text) => complaints.add(`policy: ${text}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`);
    });
  });
}

/**
 * Runs `body` with a browser. `open` makes a tab that shows a path of the monitor's; its options are those
 * of a context in playwright (size, colours, motion, scripts).
 */
export async function browse(body, flags = []) {
  const url = process.argv[2];
  const { origin } = new URL(url);
  const complaints = new Complaints();
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: [...FLAGS, ...flags] });
  const open = async (path = "/", options = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    const page = await context.newPage();
    await watch(page, origin, complaints);
    await page.goto(`${url}${path}`);
    return page;
  };
  try {
    await body({ open, url, browser, complaints });
    complaints.assertNone();
  } finally {
    await browser.close();
  }
  say("passed");
  process.exit(0);
}
