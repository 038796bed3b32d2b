// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// A few lines beside the pointer, never beyond the edge of the window.

import { setText } from "./elements.js";

const AWAY = 14;

export class Tooltip {

  readonly #box: HTMLElement;

  constructor(box: HTMLElement) {
    this.#box = box;
  }

  show(lines: readonly string[], at: { x: number; y: number } | null): void {
    setText(this.#box, lines.join("\n"));
    this.#box.hidden = false;
    if (!at) return;
    const { width, height } = this.#box.getBoundingClientRect();
    const left = at.x + AWAY + width > innerWidth ? at.x - AWAY - width : at.x + AWAY;
    const top = at.y + AWAY + height > innerHeight ? at.y - AWAY - height : at.y + AWAY;
    this.#box.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  }

  hide(): void {
    this.#box.hidden = true;
  }
}
