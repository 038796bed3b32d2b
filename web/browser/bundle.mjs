// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 20: what the binary serves is what another build makes, elsewhere; it is small; and the page asks
// nobody else for anything, which the harness looks after.

import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { browse, untilRow } from "./harness.mjs";

/** Of the script and the style together, compressed: esbuild's bundle. */
const MOST_BYTES = 20_000;
const FILES = { "/": "tunnel.html", "/tunnel.js": "tunnel.js", "/tunnel.css": "tunnel.css" };

/** A copy of what the page is built from, in another folder, built there. */
function buildElsewhere() {
  const web = dirname(dirname(fileURLToPath(import.meta.url)));
  const copy = mkdtempSync(join(tmpdir(), "elsewhere-"));
  for (const part of ["package.json", "tsconfig.json", "src"]) cpSync(join(web, part), join(copy, part), { recursive: true });
  symlinkSync(join(web, "node_modules"), join(copy, "node_modules"));
  execFileSync("npm", ["run", "--silent", "build"], { cwd: copy, stdio: "inherit" });
  return join(copy, "dist");
}

await browse(async ({ open, url }) => {
  const page = await open("/#host=192.0.2.9&period=total");
  await untilRow(page, "10.77.0.1");
  const loaded = await page.evaluate(() => performance.getEntriesByType("resource").map((entry) => new URL(entry.name).pathname));
  const known = new Set([...Object.keys(FILES), "/data/page.json"]);
  assert.deepEqual(loaded.filter((path) => !known.has(path)), []);

  const built = buildElsewhere();
  let size = 0;
  for (const [path, file] of Object.entries(FILES)) {
    const served = Buffer.from(await (await fetch(`${url}${path}`)).arrayBuffer());
    assert(served.equals(readFileSync(join(built, file))), `${file} is another one when it is built again`);
    if (path !== "/") size += gzipSync(served, { level: 9 }).length;
  }
  assert(size <= MOST_BYTES, `${size} bytes`);
});
