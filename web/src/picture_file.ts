// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The picture as a file that needs no style sheet, with what it shows and when written above it.

import { svg } from "./elements.js";

/** What tunnel.css decides and a file has to say itself. */
const STYLES = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-opacity",
  "stroke-width",
  "opacity",
  "font-family",
  "font-size",
];
/** Pixels of a PNG for each of the screen's. */
const SHARP = 2;
const LINE = 18;
const EDGE = 12;

export interface PictureFile {
  readonly text: string;
  readonly width: number;
  readonly height: number;
}

function styled(original: Element, copy: Element): void {
  const style = getComputedStyle(original);
  for (const name of STYLES) {
    const value = style.getPropertyValue(name);
    if (value !== "") copy.setAttribute(name, value);
  }
  for (const name of ["class", "id", "role", "aria-label", "tabindex"]) copy.removeAttribute(name);
  [...original.children].forEach((child, index) => {
    const same = copy.children[index];
    if (same) styled(child, same);
  });
}

/** The picture with these lines above it. */
export function svgFile(picture: SVGSVGElement, lines: readonly string[]): PictureFile {
  const { width, height } = picture.viewBox.baseVal;
  const page = getComputedStyle(document.body);
  const above = 2 * EDGE + lines.length * LINE;
  const file = svg("svg");
  file.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  file.setAttribute("width", String(width));
  file.setAttribute("height", String(height + above));
  const ground = svg("rect");
  ground.setAttribute("width", "100%");
  ground.setAttribute("height", "100%");
  ground.setAttribute("fill", page.backgroundColor);
  file.append(ground);
  lines.forEach((line, index) => {
    const text = svg("text");
    text.textContent = line;
    text.setAttribute("x", String(EDGE));
    text.setAttribute("y", String(EDGE + (index + 0.8) * LINE));
    text.setAttribute("fill", page.color);
    text.setAttribute("font-family", page.fontFamily);
    text.setAttribute("font-size", index === 0 ? "14" : "11");
    file.append(text);
  });
  const copy = svg("g");
  copy.setAttribute("transform", `translate(${width / 2} ${height / 2 + above})`);
  for (const child of picture.children) {
    const layer = child.cloneNode(true) as Element;
    styled(child, layer);
    copy.append(layer);
  }
  file.append(copy);
  // Names may have letters that XML has no place for.
  const text = new XMLSerializer().serializeToString(file).replace(/[^\t\n\r -\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");
  return { text, width, height: height + above };
}

/** The same in dots. */
export async function pngFile({ text, width, height }: PictureFile): Promise<Blob> {
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = width * SHARP;
    canvas.height = height * SHARP;
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((done, fail) =>
      canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("the picture is too large for a PNG"))), "image/png"),
    );
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Gives the user a file. */
export function save(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  // Not at once: the browser has to read it first.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
