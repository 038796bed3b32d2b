// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Every pair in a table that has only those rows in the document that can be seen.

import { html, setAttribute, setText } from "./elements.js";
import { isForBrowser, moved } from "./moves.js";
import type { Column } from "./view.js";

/** What there is for the table; what stands in cells is asked for those rows only that can be seen. */
export interface Lines {
  readonly ids: readonly string[];
  /** One for each of the columns that are shown. */
  cells(place: number): readonly string[];
}

export interface Head {
  readonly column: Column | null;
  readonly name: string;
  readonly className: string;
}

export interface Doings {
  sort(column: Column): void;
  point(line: string | null, at: { x: number; y: number } | null): void;
  open(line: string): void;
  /** Somebody has begun to read it, or has gone: its order is to be held meanwhile. */
  held(): void;
}

/** Pixels, as tunnel.css has it. */
const HEIGHT = 26;
/** Rows beyond the edges, so that scrolling shows no gap. */
const BEYOND = 8;

export class Table {
  readonly #head: HTMLTableRowElement;
  readonly #body: HTMLTableSectionElement;
  readonly #above = spacer();
  readonly #below = spacer();
  readonly #rows: HTMLTableRowElement[] = [];
  #lines: Lines = { ids: [], cells: () => [] };
  #active: string | null = null;
  #isLit: (line: string) => boolean = () => false;
  #heads = "";
  /** Where the pointer is, as long as it is what points. */
  #pointer: { x: number; y: number } | null = null;

  readonly #scroller: HTMLElement;
  readonly #table: HTMLTableElement;
  readonly #doings: Doings;

  constructor(scroller: HTMLElement, table: HTMLTableElement, doings: Doings) {
    this.#scroller = scroller;
    this.#table = table;
    this.#doings = doings;
    this.#head = table.tHead?.rows[0] ?? table.createTHead().insertRow();
    this.#body = table.tBodies[0] ?? table.createTBody();
    this.#body.append(this.#above, this.#below);
    scroller.addEventListener("scroll", () => {
      this.#put();
      // Another row has come under a pointer that has not moved.
      const at = this.#pointer;
      if (at) doings.point(lineOf(document.elementFromPoint(at.x, at.y)), at);
    }, { passive: true });
    this.#body.addEventListener("pointermove", (event) => {
      this.#pointer = { x: event.clientX, y: event.clientY };
      doings.point(lineOf(event.target), this.#pointer);
    });
    scroller.addEventListener("pointerenter", () => doings.held());
    scroller.addEventListener("pointerleave", () => {
      this.#pointer = null;
      doings.point(null, null);
      doings.held();
    });
    this.#body.addEventListener("click", (event) => {
      const line = lineOf(event.target);
      // Who has marked text wants to copy it.
      if (line !== null && getSelection()?.isCollapsed !== false) doings.open(line);
    });
    table.addEventListener("keydown", (event) => this.#key(event));
    table.addEventListener("focusin", () => doings.held());
    table.addEventListener("focusout", () => {
      doings.point(null, null);
      doings.held();
    });
  }

  /** Whether somebody reads in it. */
  isHeld(): boolean {
    return this.#scroller.matches(":hover") || document.activeElement === this.#table;
  }

  draw(heads: readonly Head[], lines: Lines, column: Column, ascending: boolean): void {
    this.#putHeads(heads, column, ascending);
    this.#lines = lines;
    setAttribute(this.#table, "aria-rowcount", String(lines.ids.length + 1));
    this.#put();
  }

  light(isLit: (line: string) => boolean): void {
    this.#isLit = isLit;
    for (const row of this.#rows) row.classList.toggle("lit", row.dataset.pair !== undefined && isLit(row.dataset.pair));
  }

  #putHeads(heads: readonly Head[], column: Column, ascending: boolean): void {
    const names = heads.map(({ name, className }) => `${name} ${className}`).join();
    if (names !== this.#heads) {
      this.#heads = names;
      this.#head.replaceChildren(...heads.map((each) => this.#headCell(each)));
      for (const row of this.#rows.splice(0)) row.remove();
    }
    heads.forEach((each, index) => {
      const cell = this.#head.cells[index];
      if (!cell || each.column === null) return;
      setAttribute(cell, "aria-sort", each.column !== column ? "none" : ascending ? "ascending" : "descending");
    });
  }

  #headCell({ column, name, className }: Head): HTMLTableCellElement {
    const cell = html("th", className);
    cell.scope = "col";
    if (column === null) {
      cell.textContent = name;
      return cell;
    }
    const button = html("button");
    button.type = "button";
    button.textContent = name;
    button.dataset.column = column;
    button.addEventListener("click", () => this.#doings.sort(column));
    cell.append(button);
    return cell;
  }

  /** Brings the rows that can be seen up to date. */
  #put(): void {
    const visible = Math.ceil(this.#scroller.clientHeight / HEIGHT) + 2 * BEYOND;
    const first = Math.max(0, Math.min(Math.floor(this.#scroller.scrollTop / HEIGHT) - BEYOND, this.#lines.ids.length - visible));
    const shown = this.#lines.ids.slice(first, first + visible);
    while (this.#rows.length < shown.length) this.#addRow();
    for (const row of this.#rows.splice(shown.length)) row.remove();
    tall(this.#above, first);
    tall(this.#below, this.#lines.ids.length - first - shown.length);
    let active: string | null = null;
    shown.forEach((id, index) => {
      const row = this.#rows[index];
      if (!row) return;
      row.dataset.pair = id;
      setAttribute(row, "aria-rowindex", String(first + index + 2));
      this.#lines.cells(first + index).forEach((text, column) => {
        const cell = row.cells[column];
        if (cell) setText(cell, text);
      });
      row.classList.toggle("active", id === this.#active);
      row.classList.toggle("lit", this.#isLit(id));
      if (id === this.#active) active = row.id;
    });
    if (active === null) this.#table.removeAttribute("aria-activedescendant");
    else setAttribute(this.#table, "aria-activedescendant", active);
  }

  #addRow(): void {
    const row = html("tr");
    row.id = `row-${this.#rows.length}`;
    for (const head of this.#head.cells) row.append(html("td", head.className));
    this.#below.before(row);
    this.#rows.push(row);
  }

  #key(event: KeyboardEvent): void {
    if (event.target !== this.#table || isForBrowser(event)) return;
    const at = this.#lines.ids.findIndex((id) => id === this.#active);
    const page = Math.max(1, Math.floor(this.#scroller.clientHeight / HEIGHT) - 2);
    const place = moved(event.key, at, this.#lines.ids.length, page);
    if (place !== undefined) {
      this.#activate(place);
    } else if (event.key === "Enter" && this.#active !== null && at >= 0) {
      this.#doings.open(this.#active);
    } else {
      return;
    }
    event.preventDefault();
  }

  #activate(place: number): void {
    this.#pointer = null;
    this.#active = this.#lines.ids[place] ?? null;
    const [top, height] = [place * HEIGHT, this.#scroller.clientHeight - 2 * HEIGHT];
    if (top < this.#scroller.scrollTop) this.#scroller.scrollTop = top;
    else if (top > this.#scroller.scrollTop + height) this.#scroller.scrollTop = top - height;
    this.#put();
    const row = this.#rows.find(({ dataset }) => dataset.pair === this.#active);
    const box = row?.getBoundingClientRect();
    if (this.#active !== null && box) this.#doings.point(this.#active, { x: box.left + 40, y: box.bottom });
  }
}

function lineOf(target: EventTarget | null): string | null {
  return target instanceof Element ? (target.closest<HTMLElement>("tr[data-pair]")?.dataset.pair ?? null) : null;
}

/** Stands for the rows that are not in the document. */
function spacer(): HTMLTableRowElement {
  const row = html("tr", "spacer");
  row.setAttribute("aria-hidden", "true");
  row.append(html("td"));
  return row;
}

function tall(row: HTMLTableRowElement, rows: number): void {
  const height = `${rows * HEIGHT}px`;
  if (row.style.height !== height) row.style.height = height;
  row.hidden = rows === 0;
}
