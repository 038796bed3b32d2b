// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 17: text has a contrast of 4.5 to 1, arcs have 3 to 1 or an outline that has, in light and in dark;
// colours differ for those who see few of them, and nothing is said by colour alone.

import { strict as assert } from "node:assert";
import { browse, until, untilRow } from "./harness.mjs";

/** Relative luminance (WCAG 2.2), of sRGB from 0 to 255. */
function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((part) => {
    const linear = part / 255;
    return linear <= 0.04045 ? linear / 12.92 : ((linear + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}

function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

/** What is seen of the page: the colour of each text and of what is behind it, and of each arc. */
function seen(page) {
  return page.evaluate(() => {
    const canvas = new OffscreenCanvas(1, 1);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
      return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((part, index) => part * a + below[index] * (1 - a));
    const behind = (element) => {
      const layers = [];
      for (let each = element; each; each = each.parentElement) layers.push(rgba(getComputedStyle(each).backgroundColor));
      const base = matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
      return layers.reverse().reduce((below, layer) => over(layer, below), base);
    };
    const texts = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (node.textContent.trim() === "" || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      if (element.closest("noscript, option, :disabled, .unseen")) continue;
      const style = getComputedStyle(element);
      const background = behind(element);
      const fill = element instanceof SVGElement ? style.fill : style.color;
      let opacity = 1;
      for (let each = element; each; each = each.parentElement) opacity *= Number(getComputedStyle(each).opacity);
      const [r, g, b, a] = rgba(fill);
      texts.push({ text: node.textContent.trim().slice(0, 40), colour: over([r, g, b, a * opacity], background), background });
    }
    const background = behind(document.getElementById("chord"));
    const arcs = [...document.querySelectorAll("#chord .end")].map((end) => {
      const path = end.querySelector("path.arc");
      const { fill, stroke, strokeWidth } = getComputedStyle(path);
      const outline = stroke === "none" || parseFloat(strokeWidth) === 0 ? null : over(rgba(stroke), background);
      return { name: end.textContent, fill: over(rgba(fill), background), outline };
    });
    return { texts, arcs, background };
  });
}

/** Vienot, Brettel and Mollon 1999: what a dichromat sees of a linear RGB colour. */
const DICHROMATS = {
  protan: [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
  deutan: [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
};

function asSeenBy(matrix, colour) {
  const linear = colour.map((part) => (part / 255) ** 2.2);
  return matrix.map((row) => 255 * Math.max(0, row.reduce((sum, factor, index) => sum + factor * linear[index], 0)) ** (1 / 2.2));
}

function distance(one, other) {
  return Math.hypot(...one.map((part, index) => part - other[index]));
}

await browse(async ({ open }) => {
  for (const colorScheme of ["light", "dark"]) {
    const page = await open("/#period=total", { colorScheme });
    await untilRow(page, "172.16.1.2");
    await until("arcs", async () => (await page.locator("#chord .end").count()) === 17);
    const { texts, arcs, background } = await seen(page);
    assert.equal(luminance(background) < 0.2, colorScheme === "dark", `${colorScheme}: the background is ${background}`);
    assert(texts.length > 50, `${texts.length} texts`);
    const faint = texts.filter(({ colour, background }) => contrast(colour, background) < 4.5);
    assert.deepEqual(
      faint.map(({ text, colour, background }) => `${text}: ${contrast(colour, background).toFixed(2)}`),
      [],
      colorScheme,
    );
    for (const { name, fill, outline } of arcs) {
      const best = Math.max(contrast(fill, background), outline ? contrast(outline, background) : 0);
      assert(best >= 3, `${colorScheme}: ${name} has ${best.toFixed(2)}`);
      // Never colour alone: each has its name beside it.
      assert.match(name, /^(\d+\.\d+\.\d+\.\d+|other \(\d+\))$/);
    }
    const fills = [...new Set(arcs.map(({ fill }) => fill.map(Math.round).join()))].map((fill) => fill.split(",").map(Number));
    assert(fills.length >= 8, `${fills.length} colours`);
    for (const [kind, matrix] of Object.entries(DICHROMATS)) {
      const their = fills.map((fill) => asSeenBy(matrix, fill));
      for (const [index, one] of their.entries()) {
        for (const [other, another] of their.entries()) {
          if (other <= index) continue;
          const apart = distance(one, another);
          assert(apart >= 15, `${colorScheme}, ${kind}: ${fills[index]} and ${fills[other]} are ${apart.toFixed(0)} apart`);
        }
      }
    }
    await page.context().close();
  }
  // The user's own choice stands above the system's.
  const page = await open("/#theme=dark", { colorScheme: "light" });
  await untilRow(page, "172.16.1.2");
  const { background } = await seen(page);
  assert(luminance(background) < 0.2, `the background is ${background}`);
});
