// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Pictures of the page, for people: make screenshots.

import { join } from "node:path";
import { browse, textOf, until, untilRow } from "./harness.mjs";

const [, , , what, folder] = process.argv;
const WIDE = { viewport: { width: 1280, height: 800 } };

await browse(async ({ open, complaints }) => {
  const take = async (page, name) => {
    // The last motion has ended.
    await page.waitForTimeout(1000);
    await page.screenshot({ path: join(folder, `${name}.png`) });
  };
  const drawn = (page, arcs) => until("arcs", async () => (await page.locator("#chord .end").count()) >= arcs);
  const taking = {
    async empty() {
      const page = await open("/", WIDE);
      await page.locator("#empty").waitFor({ state: "visible" });
      await take(page, "empty");
    },
    async hosts() {
      const page = await open("/", WIDE);
      await until("host3 on top", async () => (await textOf(page, "#pairs tbody tr[data-pair]")).includes("172.16.1.103"));
      await drawn(page, 9);
      await take(page, "hosts");
      const dark = await open("/", { ...WIDE, colorScheme: "dark" });
      await drawn(dark, 9);
      await take(dark, "dark");
      const narrow = await open("/", { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 });
      await drawn(narrow, 9);
      await take(narrow, "narrow");
      const inside = await open("/#host=172.16.1.103", WIDE);
      await untilRow(inside, "192.168.0.4");
      await take(inside, "inside");
      complaints.expect(/^console: Failed to load resource/);
      await page.route("**/data/page.json", (route) => route.abort());
      await page.locator("#banner").waitFor({ state: "visible" });
      await take(page, "outage");
    },
    async crowded() {
      const page = await open("/", WIDE);
      await drawn(page, 17);
      await take(page, "200-hosts");
    },
    async addresses() {
      const page = await open("/#host=172.16.1.2&top=64", WIDE);
      await drawn(page, 65);
      await take(page, "2000-addresses");
    },
  };
  await taking[what]();
});
