// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The picture: an arc for each end, as long as what it sent and received, and a ribbon for each direction of a
// pair, in the colour of who sends, with a point at who receives.

/*! With d3-chord, Copyright 2010-2026 Mike Bostock, ISC licence: https://d3js.org */

import { chordDirected } from "d3-chord";
import { arrange, setAttribute, setText, svg } from "./elements.js";
import { gap } from "./matrix.js";
import { isForBrowser, moved } from "./moves.js";
import { ribbon, ring, tick } from "./shapes.js";
import { shortened } from "./short_names.js";
import { spread } from "./spread.js";
import { Tween } from "./tween.js";

/** One end, or "other". */
export interface Arc {
  readonly id: string;
  readonly name: string;
  /** Decides the colour. */
  readonly place: number;
  readonly isOther: boolean;
  /** For who does not see it. */
  readonly text: string;
}

export interface Figure {
  /** Letters that most names have at most; longer ones are shortened. */
  readonly letters: number;
  readonly arcs: readonly Arc[];
  readonly cells: readonly (readonly number[])[];
}

/** What the pointer or the keyboard is at. */
export type Target = { readonly arc: string } | { readonly from: string; readonly to: string };

/** What the picture tells of what is done to it. */
export interface Doings {
  point(target: Target | null, at: { x: number; y: number } | null): void;
  open(arc: string): void;
}

/** Colours there are in tunnel.css. */
const COLOURS = 8;
/** Pixels: of an arc's thickness, from the arc to its label, from a label to the next, for a letter. */
const THICK = 14;
const TO_LABEL = 10;
const LINE = 13;
const LETTER = 6.8;
/** More than these are changed at once: each frame of a tween would take too long. */
const MOVING = 600;

/** Angles of one element: where it was, is to be, and is. */
interface Moving {
  from: readonly number[];
  to: readonly number[];
  now: readonly number[];
}

interface DrawnArc extends Moving {
  readonly group: SVGGElement;
  readonly path: SVGPathElement;
  readonly tick: SVGPathElement;
  readonly label: SVGTextElement;
}

interface DrawnRibbon extends Moving {
  readonly path: SVGPathElement;
  readonly source: string;
  readonly target: string;
}

export class Chord {
  readonly #ribbonLayer = svg("g", "ribbons");
  readonly #arcLayer = svg("g", "arcs");
  readonly #arcs = new Map<string, DrawnArc>();
  readonly #ribbons = new Map<string, DrawnRibbon>();
  readonly #tween = new Tween();
  #figure: Figure = { letters: 0, arcs: [], cells: [] };
  #size = 300;
  #radius = 100;
  #room = 100;
  #active: string | null = null;
  #lit: Target | null = null;

  readonly #root: SVGSVGElement;
  readonly #doings: Doings;

  constructor(root: SVGSVGElement, doings: Doings) {
    this.#root = root;
    this.#doings = doings;
    root.append(this.#ribbonLayer, this.#arcLayer);
    root.addEventListener("pointermove", (event) => {
      doings.point(this.#targetOf(event.target), { x: event.clientX, y: event.clientY });
    });
    root.addEventListener("pointerleave", () => doings.point(null, null));
    root.addEventListener("click", (event) => {
      const target = this.#targetOf(event.target);
      if (target && "arc" in target) doings.open(target.arc);
    });
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("focus", () => root.matches(":focus-visible") && this.#activate(this.#active ?? this.#figure.arcs[0]?.id ?? null));
    root.addEventListener("blur", () => {
      this.#mark(null);
      doings.point(null, null);
    });
  }

  /** Pixels that there are for all of it. */
  resize(width: number, height: number): void {
    this.#size = Math.min(width, height);
    setAttribute(this.#root, "viewBox", `${-width / 2} ${-height / 2} ${width} ${height}`);
    setAttribute(this.#root, "width", String(width));
    setAttribute(this.#root, "height", String(height));
    this.draw(this.#figure, false);
  }

  draw(figure: Figure, isMoving = true): void {
    this.#figure = figure;
    const chords = layout(figure);
    const { groups } = chords;
    // As much for all labels of a kind, whoever is there: the circle must not breathe. A large one has more.
    const wanted = Math.max(figure.letters * LETTER + TO_LABEL + 6, this.#size * 0.2);
    this.#room = Math.min(wanted, this.#size * 0.33);
    this.#radius = this.#size / 2 - this.#room;
    const middles = groups.map(({ startAngle, endAngle }) => (startAngle + endAngle) / 2);
    const labels = spread(middles, LINE / (this.#radius + TO_LABEL));
    const letters = Math.floor((this.#room - TO_LABEL - 5) / LETTER);
    const names = shortened(figure.arcs.map(({ name }) => name), letters);
    const arcs = new Set<string>();
    groups.forEach(({ index, startAngle, endAngle }) => {
      const end = figure.arcs[index];
      if (!end) return;
      arcs.add(end.id);
      this.#putArc(end, names[index] ?? "", [startAngle, endAngle, labels[index] ?? startAngle]);
    });
    const ribbons = new Set<string>();
    for (const { source, target } of chords) {
      const [from, to] = [figure.arcs[source.index], figure.arcs[target.index]];
      if (!from || !to) continue;
      const id = `${from.id} > ${to.id}`;
      ribbons.add(id);
      this.#putRibbon(id, from, to, [source.startAngle, source.endAngle, target.startAngle, target.endAngle]);
    }
    drop(this.#arcs, arcs, ({ group }) => group);
    drop(this.#ribbons, ribbons, ({ path }) => path);
    arrange(this.#arcLayer, figure.arcs.flatMap(({ id }) => this.#arcs.get(id)?.group ?? []));
    if (this.#active !== null && !arcs.has(this.#active)) this.#mark(null);
    this.light(this.#lit);
    const all = [...this.#arcs.values(), ...this.#ribbons.values()];
    for (const moving of all) moving.from = moving.now;
    this.#tween.run(isMoving && all.length < MOVING && all.some(isElsewhere), (part) => this.#step(part));
  }

  /** Shows what belongs to the target and fades the rest; null: nothing is faded. */
  light(target: Target | null): void {
    this.#lit = target;
    const touched = new Set<string>();
    for (const { path, source, target: sink } of this.#ribbons.values()) {
      const isLit = target !== null && isAt(target, source, sink);
      path.classList.toggle("lit", isLit);
      if (isLit) touched.add(source).add(sink);
    }
    for (const [id, { group }] of this.#arcs) group.classList.toggle("lit", touched.has(id) || (target !== null && "arc" in target && target.arc === id));
    this.#root.classList.toggle("fading", target !== null);
  }

  #putArc(end: Arc, name: string, to: readonly number[]): void {
    let drawn = this.#arcs.get(end.id);
    if (!drawn) {
      const group = svg("g");
      const [path, tick, label] = [svg("path", "arc"), svg("path", "tick"), svg("text")];
      group.append(path, tick, label);
      group.id = `arc-${serial()}`;
      group.dataset.end = end.id;
      group.setAttribute("role", "option");
      label.setAttribute("dy", "0.35em");
      const middle = ((to[0] ?? 0) + (to[1] ?? 0)) / 2;
      drawn = { group, path, tick, label, from: [], to, now: [middle, middle, to[2] ?? middle] };
      this.#arcs.set(end.id, drawn);
    }
    drawn.to = to;
    setAttribute(drawn.group, "class", `end ${colour(end)}${this.#active === end.id ? " active" : ""}`);
    setAttribute(drawn.group, "aria-label", end.text);
    setText(drawn.label, name);
  }

  #putRibbon(id: string, from: Arc, to: Arc, angles: readonly number[]): void {
    let drawn = this.#ribbons.get(id);
    if (!drawn) {
      const path = svg("path");
      path.dataset.from = from.id;
      path.dataset.to = to.id;
      this.#ribbonLayer.append(path);
      const [a = 0, b = 0, c = 0, d = 0] = angles;
      const [source, target] = [(a + b) / 2, (c + d) / 2];
      drawn = { path, source: from.id, target: to.id, from: [], to: angles, now: [source, source, target, target] };
      this.#ribbons.set(id, drawn);
    }
    drawn.to = angles;
    setAttribute(drawn.path, "class", `ribbon ${colour(from)}`);
  }

  #step(part: number): void {
    for (const drawn of this.#arcs.values()) {
      drawn.now = between(drawn, part);
      const [start = 0, end = 0, label = 0] = drawn.now;
      drawn.path.setAttribute("d", ring(start, end, this.#radius - THICK, this.#radius));
      drawn.tick.setAttribute("d", tick((start + end) / 2, label, this.#radius + 1, this.#radius + TO_LABEL));
      const isLeft = Math.sin(label) < 0;
      const turned = (label * 180) / Math.PI - 90;
      drawn.label.setAttribute(
        "transform",
        `rotate(${turned.toFixed(2)}) translate(${this.#radius + TO_LABEL + 3})${isLeft ? " rotate(180)" : ""}`,
      );
      drawn.label.setAttribute("text-anchor", isLeft ? "end" : "start");
    }
    const head = Math.min(12, this.#radius / 12);
    for (const drawn of this.#ribbons.values()) {
      drawn.now = between(drawn, part);
      drawn.path.setAttribute("d", ribbon(drawn.now, this.#radius - THICK - 1, head));
    }
  }

  #targetOf(element: EventTarget | null): Target | null {
    if (!(element instanceof SVGElement)) return null;
    const { from, to } = element.dataset;
    if (from !== undefined && to !== undefined) return { from, to };
    const end = element.closest<SVGElement>("[data-end]")?.dataset.end;
    return end === undefined ? null : { arc: end };
  }

  #key(event: KeyboardEvent): void {
    if (isForBrowser(event)) return;
    const ids = this.#figure.arcs.map(({ id }) => id);
    const at = this.#active === null ? -1 : ids.indexOf(this.#active);
    const place = moved(event.key, at, ids.length, 4);
    if (place !== undefined) {
      this.#activate(ids[place] ?? null);
    } else if (event.key === "Enter" && this.#active !== null) {
      this.#doings.open(this.#active);
    } else {
      return;
    }
    event.preventDefault();
  }

  #activate(id: string | null): void {
    this.#mark(id);
    const group = id === null ? undefined : this.#arcs.get(id)?.group;
    if (id === null || !group) return;
    const { right, top } = group.getBoundingClientRect();
    this.#doings.point({ arc: id }, { x: right, y: top });
  }

  #mark(id: string | null): void {
    if (this.#active !== null) this.#arcs.get(this.#active)?.group.classList.remove("active");
    this.#active = id;
    const group = id === null ? undefined : this.#arcs.get(id)?.group;
    group?.classList.add("active");
    if (group) this.#root.setAttribute("aria-activedescendant", group.id);
    else this.#root.removeAttribute("aria-activedescendant");
  }
}

function layout({ cells }: Figure): ReturnType<ReturnType<typeof chordDirected>> {
  return chordDirected().padAngle(gap(cells.length))(cells.map((row) => [...row]));
}

let made = 0;

/** Ids of the document must not hold what is in the names of ends. */
function serial(): number {
  return (made += 1);
}

function colour({ isOther, place }: Arc): string {
  return isOther ? "other" : `colour${place % COLOURS}`;
}

function isAt(target: Target, from: string, to: string): boolean {
  if ("arc" in target) return target.arc === from || target.arc === to;
  return (target.from === from && target.to === to) || (target.from === to && target.to === from);
}

function isElsewhere({ now, to }: Moving): boolean {
  return now.some((angle, index) => Math.abs(angle - (to[index] ?? angle)) > 1e-4);
}

function between({ from, to }: Moving, part: number): number[] {
  return to.map((angle, index) => {
    const before = from[index] ?? angle;
    return before + (angle - before) * part;
  });
}

function drop<T>(drawn: Map<string, T>, kept: ReadonlySet<string>, element: (each: T) => Element): void {
  for (const [id, each] of drawn) {
    if (kept.has(id)) continue;
    element(each).remove();
    drawn.delete(id);
  }
}
