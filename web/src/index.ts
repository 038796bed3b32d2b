// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The page of tunnel_monitor. What is shown follows from two things: the last sample, and the view that stands
// in the address. Whatever happens changes one of them, and everything is drawn from both again.

import { Chord, type Arc, type Target } from "./chord.js";
import { Choices, type Item } from "./choices.js";
import { bindControls } from "./controls.js";
import { endLines, pairLines, ribbonLines } from "./described.js";
import { byId, setAttribute, setLines, setText } from "./elements.js";
import { bothWays, networkName, shortNetwork, type Choice, type Pair } from "./listing.js";
import { OTHER } from "./matrix.js";
import { count, empty, failure as failureText, place, warnings } from "./messages.js";
import { pngFile, save, svgFile } from "./picture_file.js";
import { Places } from "./places.js";
import { Poll } from "./poll.js";
import type { Sample } from "./sample.js";
import { Scenes, type Scene } from "./scene.js";
import { inOrder, sorted } from "./sorting.js";
import { Table, type Head } from "./table.js";
import { Tooltip } from "./tooltip.js";
import { clock, length, measure, plus, say, share } from "./units.js";
import { fromHash, hash, TOPS, type Column, type View } from "./view.js";
import { csv, fileName, json } from "./written.js";

/** Networks and hosts that are listed to choose from; the others are found by searching. */
const CHOICES = 100;

/** 172.16.100.100, and 192.168.10.10 · 10000. */
const LETTERS = 14;
const LETTERS_INSIDE = 19;

/** Marks what this page has put into the history. */
const OURS = "step";

let view: View = fromHash(location.hash);
let sample: Sample | null = null;
let scene: Scene | null = null;
let failed: string | null = null;
let broken: string | null = null;
let target: Pointed | null = null;
/** The pairs as the table has them, and by their ids. */
let lines: readonly Pair[] = [];
let byPair = new Map<string, Pair>();
let isResorting = false;
/** Of what was said last to who cannot see it. */
let told = "";

const scenes = new Scenes();
const tooltip = new Tooltip(byId("tooltip"));
const listedNetworks = new Places();
const listedHosts = new Places();

const chord = new Chord(byId<SVGSVGElement>("chord"), { point, open });
const table = new Table(byId("scroller"), byId<HTMLTableElement>("pairs"), {
  sort: sortBy,
  point: (id, at) => {
    const pair = byPair.get(id ?? "");
    point(pair && scene ? { from: drawnEnd(pair.a.id), to: drawnEnd(pair.b.id), pair } : null, at);
  },
  open: (id) => {
    const pair = byPair.get(id);
    if (pair) lookInto(pair.b.address);
  },
  held: () => tellListed(),
});
const networks = new Choices(byId("networks"), "radio", (id) => change({ network: id === "" ? null : id }, true));
const hosts = new Choices(byId("hosts"), "checkbox", (id, isChosen) => {
  change({ hosts: isChosen ? [...view.hosts, id] : view.hosts.filter((each) => each !== id) }, true);
});

const poll = new Poll(
  "data/page.json",
  {
    sample: (found) => {
      sample = found;
      // In a task of its own: to read thousands of rows is one already. Where it is stopped, one is enough.
      setTimeout(show);
    },
    state: (reason) => {
      failed = reason;
      tellState();
    },
  },
  {
    fetch: (address, options) => fetch(address, options),
    now: () => performance.now(),
    later: (act, milliseconds) => setTimeout(act, milliseconds),
    never: (timer) => clearTimeout(timer as number),
  },
);

/** The view becomes another; where it is a step that one may want to go back, the browser's button does. */
function change(part: Partial<View>, isStep = false): void {
  // The hash knows what goes together.
  view = fromHash(hash({ ...view, ...part }));
  const address = `${location.pathname}${location.search}${hash(view)}`;
  if (isStep) history.pushState(OURS, "", address);
  else history.replaceState(OURS, "", address);
  show();
}

function show(): void {
  controls.show(view);
  if (document.hidden || (view.stopped && sample)) poll.stop();
  else poll.start();
  draw();
}

/** Whatever goes wrong is said, above what was drawn last. */
function draw(): void {
  try {
    drawAll();
    broken = null;
  } catch (error) {
    broken = `This page cannot draw it: ${error}.`;
  }
  tellState();
}

function drawAll(): void {
  if (!sample) return;
  scene = scenes.make(sample, view);
  drawPicture(sample, scene);
  drawTable(scene);
  drawChoices(scene);
  drawWords(sample, scene);
  refreshPoint();
}

function drawPicture(now: Sample, { figure, words, listing }: Scene): void {
  const arcs = figure.ends.map((id): Arc => {
    const text = endLines(figure, id, words).join(", ");
    return { id, name: words.name(id), place: scenes.placeOf(id), isOther: id === OTHER, text };
  });
  chord.draw({ letters: listing.inside ? LETTERS_INSIDE : LETTERS, arcs, cells: figure.cells });
  const nothing = empty(now, view, listing);
  const box = byId("empty");
  box.hidden = nothing === null;
  if (!nothing) return;
  setText(byId("nothing"), nothing.heading);
  setText(byId("why"), nothing.text);
  setText(byId("command"), nothing.command ?? "");
}

/** Columns that the table has now: inside, with the network. */
function heads(inside: boolean): Head[] {
  const network: Head[] = inside ? [{ column: "network", name: "VNI", className: "network" }] : [];
  return [
    ...network,
    { column: "a", name: "A", className: "address" },
    { column: "b", name: "B", className: "address" },
    { column: "sent", name: "A → B", className: "figure" },
    { column: "received", name: "B → A", className: "figure" },
    { column: "both", name: "Both", className: "figure" },
    { column: null, name: "Share", className: "share" },
  ];
}

function drawTable({ listing, words, sums }: Scene): void {
  const pairs = sorted(listing.pairs, view.column, view.ascending, view.unit);
  lines = table.isHeld() && !isResorting ? inOrder(pairs, lines.map(({ id }) => id)) : pairs;
  byPair = new Map(lines.map((pair) => [pair.id, pair]));
  isResorting = false;
  const figure = (amount: number): string => say(amount, view.unit, words.seconds);
  const cells = (place: number): string[] => {
    const pair = lines[place];
    if (!pair) return [];
    const { network, a, b, sent, received } = pair;
    const both = measure(plus(sent, received), view.unit);
    const figures = [measure(sent, view.unit), measure(received, view.unit), both].map(figure);
    return [...(network === null ? [] : [shortNetwork(network)]), a.name, b.name, ...figures, share(both, sums.all)];
  };
  table.draw(heads(listing.inside), { ids: lines.map(({ id }) => id), cells }, view.column, view.ascending);
  tellListed();
}

/** Choices in an order that figures do not change, with what is chosen among them though it be quiet. */
function items(known: readonly Choice[], chosen: readonly string[], places: Places, name: (id: string) => string): Item[] {
  const amounts = new Map(known.map(({ id, amount }) => [id, measure(amount, view.unit)]));
  const loudest = Math.max(1, ...amounts.values());
  const ids = new Set([...chosen, ...places.arrange(amounts, CHOICES)]);
  const seconds = scene?.words.seconds ?? 0;
  const byNumber = new Intl.Collator("en", { numeric: true });
  return [...ids].sort(byNumber.compare).map((id) => {
    const amount = amounts.get(id) ?? 0;
    // A network of hosts that was chosen has no figure of its own.
    const text = !amounts.has(id) && /[.:].*\//.test(id) ? "" : amount === 0 ? "quiet" : say(amount, view.unit, seconds);
    return { id, name: name(id), amount: text, part: amount / loudest, isChosen: chosen.includes(id) };
  });
}

function more(known: readonly Choice[]): string {
  return known.length > CHOICES ? `The ${CHOICES} loudest of ${count(known.length)}; search for others.` : "";
}

function drawChoices({ listing }: Scene): void {
  const all = { id: "", name: "all", amount: "", part: 1, isChosen: view.network === null };
  const chosen = view.network === null ? [] : [view.network];
  networks.draw([all, ...items(listing.networks, chosen, listedNetworks, networkName)]);
  setText(byId("more-networks"), more(listing.networks));
  hosts.draw(items(listing.hosts, view.hosts, listedHosts, (id) => id));
  setText(byId("more-hosts"), more(listing.hosts));
}

function heading(): string {
  const what = view.hosts.length === 0 ? "Hosts" : `Inside ${view.hosts.join(", ")}`;
  return view.network === null ? what : `${what} · ${networkName(view.network)}`;
}

function drawWords(now: Sample, { listing: { span }, sums, words, found }: Scene): void {
  setText(byId("place"), place(now));
  setText(byId("heading"), heading());
  setAttribute(byId("heading"), "title", heading());
  setText(byId("span"), `${clock(span.from)} – ${clock(span.to)} · ${view.period === "total" ? length(span.seconds) : `${span.seconds.toFixed(1)} s`}`);
  setText(byId("found"), found);
  byId("found").classList.toggle("wrong", found.startsWith("“"));
  for (const name of ["all", "drawn", "other", "hidden", "unlisted"] as const) {
    const data = byId<HTMLDataElement>(`sum-${name}`);
    data.value = String(sums[name]);
    setText(data, say(sums[name], view.unit, words.seconds));
  }
  // When they came is not known.
  if (view.period !== "total" && bothWays(now.other).pkts > 0) setText(byId("sum-unlisted"), "see Total");
  setLines(byId("warnings"), warnings(now));
  const [back, isOutside] = [byId("back"), view.hosts.length === 0];
  // The focus would be lost with the button.
  if (isOutside && document.activeElement === back) byId("chord").focus();
  back.hidden = isOutside;
}

/** Says once what has changed for who cannot see it; an age that grows is no change. */
function tellState(): void {
  const banner = byId("banner");
  const isStopped = view.stopped && sample !== null;
  const trouble = broken ?? (isStopped ? null : failed);
  banner.hidden = trouble === null;
  if (trouble !== null) setText(banner, broken ?? failureText(trouble, poll.age(), sample !== null));
  const quiet = byId("empty").hidden ? "" : (byId("nothing").textContent ?? "");
  const stopped = view.stopped ? "Stopped. " : "";
  const [state, found] = [trouble ?? `${stopped}${quiet || heading()}. `, byId("found").textContent ?? ""];
  // How many a search finds is said when it is made, and not again with each change of the number.
  const news = `${state}${view.search} ${found !== ""}`;
  if (news !== told) setText(byId("status"), trouble ?? state + found);
  told = news;
  setText(byId("age"), view.stopped && sample ? `stopped, ${length(poll.age() / 1000)} old` : "");
}

function tellListed(): void {
  if (!scene) return;
  const { listing, words } = scene;
  const sum = say(measure(listing.listed, view.unit), view.unit, words.seconds);
  setText(byId("listed"), `${count(lines.length)} ${lines.length === 1 ? "pair" : "pairs"}, ${sum}${table.isHeld() ? "; their order is held while you are here" : ""}`);
}

/** Who stands for the end in the picture. */
function drawnEnd(id: string): string {
  return scene && !scene.figure.ends.includes(id) ? OTHER : id;
}

/** The pair, where it is the table that is pointed at: it may be one of many in "other". */
type Pointed = Target & { readonly pair?: Pair };

function point(pointed: Pointed | null, at: { x: number; y: number } | null): void {
  target = pointed;
  chord.light(pointed);
  refreshPoint(at);
  table.light((id) => {
    const pair = byPair.get(id);
    if (!pair || !target) return false;
    const [a, b] = [drawnEnd(pair.a.id), drawnEnd(pair.b.id)];
    if ("arc" in target) return target.arc === a || target.arc === b;
    return (target.from === a && target.to === b) || (target.from === b && target.to === a);
  });
}

function refreshPoint(at: { x: number; y: number } | null = null): void {
  if (!scene || !target) {
    tooltip.hide();
    return;
  }
  const told = targetLines(target, scene);
  if (told.length > 0) tooltip.show(told, at);
  // It has gone while it was pointed at: nothing else is meant.
  else point(null, null);
}

function targetLines(pointed: Pointed, { figure, words }: Scene): string[] {
  if ("arc" in pointed) return endLines(figure, pointed.arc, words);
  if (!pointed.pair) return ribbonLines(figure, pointed.from, pointed.to, words);
  const pair = byPair.get(pointed.pair.id);
  return pair ? pairLines(pair, lines, words) : [];
}

/** Hosts are looked into; what is inside already is looked at alone. */
function lookInto(address: string | null): void {
  if (address === null) return;
  if (view.hosts.length > 0) change({ search: view.search === address ? "" : address }, true);
  else change({ hosts: [address] }, true);
}

function open(arc: string): void {
  if (arc === OTHER) change({ top: TOPS.find((top) => top > view.top) ?? view.top });
  else lookInto(scene?.ends.get(arc)?.address ?? null);
}

function sortBy(column: Column): void {
  isResorting = true;
  // Figures from above, addresses from below, the second time the other way round.
  const ascending = view.column === column ? !view.ascending : column === "a" || column === "b" || column === "network";
  change({ column, ascending });
}

function step(): void {
  if (target) point(null, null);
  else if (view.search !== "") change({ search: "" }, true);
  else if (view.hosts.length > 0) change({ hosts: [] }, true);
}

async function exportAs(kind: string): Promise<void> {
  if (!sample || !scene) return;
  const { listing } = scene;
  const name = fileName(listing, kind);
  if (kind === "json") save(new Blob([json(sample, view, listing, lines)], { type: "application/json" }), name);
  else if (kind === "csv") save(new Blob([csv(view, listing, lines)], { type: "text/csv" }), name);
  else {
    const [from, to] = [listing.span.from, listing.span.to].map((time) => new Date(time).toISOString().replace(/\.\d+/, ""));
    const search = view.search === "" ? "" : ` · search ${view.search}`;
    const file = svgFile(byId<SVGSVGElement>("chord"), [`${heading()}${search}`, place(sample), `${from} to ${to}`]);
    save(kind === "svg" ? new Blob([file.text], { type: "image/svg+xml" }) : await pngFile(file), name);
  }
}

const controls = bindControls({
  change,
  step,
  export: (kind) => void exportAs(kind),
  reorder: () => {
    scenes.reorder();
    draw();
  },
});

addEventListener("popstate", ({ state }) => {
  const { network, hosts, search, ...others } = fromHash(location.hash);
  // Steps are taken back, not what was set meanwhile; what somebody has put into the address is all of a view.
  change({ network, hosts, search, ...(state === OURS ? {} : others) });
});
history.replaceState(OURS, "");
document.addEventListener("visibilitychange", show);
new ResizeObserver(([entry]) => {
  if (!entry) return;
  chord.resize(Math.floor(entry.contentRect.width), Math.floor(entry.contentRect.height));
}).observe(byId("canvas"));
// The age of a picture grows when nothing else happens.
setInterval(tellState, 1000);
show();
