// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// What the user has chosen, and the hash of the address that says the same, so that a link is the whole view.

import { canonical } from "./address.js";
import { UNITS, type Unit } from "./units.js";

export const PERIODS = ["now", "interval", "total"] as const;
/** now: the last interval and what came since; interval: the last whole one; total: since the start. */
export type Period = (typeof PERIODS)[number];

export const TOPS = [8, 16, 32, 64] as const;
export const THEMES = ["auto", "light", "dark"] as const;
export const COLUMNS = ["network", "a", "b", "sent", "received", "both"] as const;
export type Column = (typeof COLUMNS)[number];

export interface View {
  /** "vxlan/10000"; null is all of them. */
  readonly network: string | null;
  /** Outer addresses, or networks of them, into whose flows to look; none: the hosts themselves are shown. */
  readonly hosts: readonly string[];
  readonly period: Period;
  readonly unit: Unit;
  /** How many arcs there are beside "other". */
  readonly top: number;
  readonly grouped: boolean;
  readonly search: string;
  readonly column: Column;
  readonly ascending: boolean;
  readonly stopped: boolean;
  /** auto: as the browser has it. */
  readonly theme: (typeof THEMES)[number];
}

export const DEFAULT: View = {
  network: null,
  hosts: [],
  period: "now",
  unit: "bit/s",
  top: 16,
  grouped: false,
  search: "",
  column: "both",
  ascending: false,
  stopped: false,
  theme: "auto",
};

/** Longer text is no address, and a link must not grow without end. */
const SEARCH_LENGTH = 64;
const HOSTS = 64;

/** Slashes, colons and the like may stand in a hash as they are, and are easier to read so. */
function escaped(text: string): string {
  return encodeURIComponent(text).replace(/%(2F|3A|2C)/g, decodeURIComponent);
}

/** "#period=total&unit=bytes": what differs from [`DEFAULT`]; the empty text where nothing does. */
export function hash(view: View): string {
  const members: [string, string][] = [];
  if (view.network !== null) members.push(["network", view.network]);
  for (const host of view.hosts) members.push(["host", host]);
  for (const name of ["period", "unit", "top", "search", "column", "theme"] as const) {
    if (view[name] !== DEFAULT[name]) members.push([name, String(view[name])]);
  }
  for (const name of ["grouped", "ascending", "stopped"] as const) {
    if (view[name]) members.push([name, "yes"]);
  }
  return members.length === 0 ? "" : `#${members.map(([name, value]) => `${name}=${escaped(value)}`).join("&")}`;
}

function oneOf<T>(known: readonly T[], value: unknown, otherwise: T): T {
  return known.find((each) => String(each) === value) ?? otherwise;
}

/** The view of a hash that somebody may have typed: what it does not say, or says wrongly, is as by default. */
export function fromHash(text: string): View {
  const members = new URLSearchParams(text.replace(/^#/, ""));
  const named = members.get("network");
  const hosts = members.getAll("host").flatMap((host) => canonical(host) ?? []);
  const column = oneOf(COLUMNS, members.get("column"), DEFAULT.column);
  // Hosts have no column of that name.
  const isSorted = column !== "network" || hosts.length > 0;
  return {
    network: named !== null && /^[a-z0-9]{1,16}\/\d{1,10}$/.test(named) ? named : null,
    hosts: [...new Set(hosts)].slice(0, HOSTS),
    period: oneOf(PERIODS, members.get("period"), DEFAULT.period),
    unit: oneOf(UNITS, members.get("unit"), DEFAULT.unit),
    top: oneOf<number>(TOPS, members.get("top"), DEFAULT.top),
    grouped: members.get("grouped") === "yes",
    search: (members.get("search") ?? "").trim().slice(0, SEARCH_LENGTH),
    column: isSorted ? column : DEFAULT.column,
    ascending: isSorted && members.get("ascending") === "yes",
    stopped: members.get("stopped") === "yes",
    theme: oneOf(THEMES, members.get("theme"), DEFAULT.theme),
  };
}
