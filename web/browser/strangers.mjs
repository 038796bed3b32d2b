// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 21: what pages of somebody else's get, and an interface whose name is made of markup.

import { strict as assert } from "node:assert";
import { createServer } from "node:http";
import { browse, until } from "./harness.mjs";

const hostile = process.argv[3];

await browse(
  async ({ open, url, browser, complaints }) => {
    const page = await open();
    await until("the interface's name is text", async () => (await page.locator("body").innerText()).includes(hostile));
    assert.equal(await page.locator("body svg").filter({ hasText: "&lt;" }).count(), 0);
    await page.goto(`${url}/plain`);
    assert((await page.locator("body").innerText()).includes(hostile), "on the plain page");

    // Only GET and HEAD, and only what there is.
    await page.goto(url);
    complaints.expect(/the server responded with a status of 40[345]/);
    const status = (path, method) =>
      page.evaluate(async ([path, method]) => (await fetch(path, { method })).status, [path, method]);
    for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]) assert.equal(await status("/", method), 405, method);
    assert.equal(await status("/", "HEAD"), 200);
    for (const path of ["/data", "/data/", "/demos/", "/dist/", "/.."]) {
      const answer = await fetch(new URL(path, url));
      assert.equal(answer.status, path === "/.." ? 200 : 404, path);
    }

    // A name that somebody else has made point to this address.
    const rebound = await browser.newPage();
    const { port } = new URL(url);
    const answer = await rebound.goto(`http://evil.example:${port}/data/page.json`);
    assert.equal(answer.status(), 403);
    assert(!(await rebound.locator("body").innerText()).includes("rows"));
    await rebound.close();

    // A page of another origin that runs in the same browser.
    const other = createServer((_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<p>other"));
    await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
    const stranger = await browser.newPage();
    await stranger.goto(`http://127.0.0.1:${other.address().port}/`);
    const got = await stranger.evaluate(async (url) => {
      const attempts = [fetch(`${url}/data/page.json`), fetch(`${url}/data/tunnel.json`, { mode: "no-cors" })];
      const outcomes = (await Promise.allSettled(attempts)).map((attempt) => attempt.status);
      const frame = document.createElement("iframe");
      frame.src = url;
      const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
      document.body.append(frame);
      await loaded;
      return outcomes;
    }, url);
    assert.deepEqual(got, ["rejected", "rejected"]);
    // The frame shows an error of the browser's in place of the page.
    const frames = stranger.frames().slice(1);
    for (const frame of frames) assert(!frame.url().startsWith(url), frame.url());
    await stranger.close();
    other.close();
  },
  ["--host-resolver-rules=MAP evil.example 127.0.0.1"],
);
