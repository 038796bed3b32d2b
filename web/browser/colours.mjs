// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Point 17: text has a contrast of 4.5 to 1, arcs have 3 to 1 or an outline that has, in light and in dark;
// colours differ for those who see few of them, and nothing is said by colour alone.

import { strict as assert } from "node:assert";
import { browse, until, untilRow } from "./harness.mjs";

/** So much two neighbours differ at least. */
const APART = 10;

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

/** What of a linear RGB colour is seen by all, and by dichromats (Vienot, Brettel and Mollon 1999). */
const SEEING = {
  all: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protan: [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
  deutan: [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
};

function asSeenBy(matrix, colour) {
  const linear = colour.map((part) => (part / 255) ** 2.2);
  return matrix.map((row) => 255 * Math.max(0, row.reduce((sum, factor, index) => sum + factor * linear[index], 0)) ** (1 / 2.2));
}

/** CIE 1976 L*a*b*, of sRGB under D65. */
function lab(colour) {
  const [r, g, b] = colour.map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const [x, y, z] = [
    (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
    0.2126 * r + 0.7152 * g + 0.0722 * b,
    (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
  ].map((value) => (value > 0.008856 ? Math.cbrt(value) : 7.787 * value + 16 / 116));
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** How different two colours look: from 2 or 3 on side by side, from 10 on at a glance. */
function distance(one, other) {
  const [first, second] = [lab(one), lab(other)];
  return Math.hypot(...first.map((part, index) => part - second[index]));
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
    // There are fewer colours than arcs; those side by side look different to everybody.
    const fills = arcs.map(({ fill }) => fill.map(Math.round));
    for (const [kind, matrix] of Object.entries(SEEING)) {
      for (const [index, one] of fills.entries()) {
        const next = fills[(index + 1) % fills.length];
        const apart = distance(asSeenBy(matrix, one), asSeenBy(matrix, next));
        assert(apart >= APART, `${colorScheme}, ${kind}: ${one} beside ${next} is ${apart.toFixed(0)} apart`);
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
