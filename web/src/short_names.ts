// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Names that there is no room for in full.

/** The ends of an address tell more than its middle. */
function ends(name: string, letters: number): string {
  const end = Math.ceil((letters - 1) / 2);
  return `${name.slice(0, Math.max(1, letters - 1 - end))}…${name.slice(-end)}`;
}

/** What stands there from a place on. */
function part(name: string, letters: number, from: number): string {
  return name.length - from < letters ? `…${name.slice(1 - letters)}` : `…${name.slice(from, from + letters - 2)}…`;
}

/** Each in so many letters at most; those that are too long in a way that tells as many of them apart as can be. */
export function shortened(names: readonly string[], letters: number): string[] {
  const long = [...new Set(names.filter((name) => name.length > letters))];
  const longest = Math.max(0, ...long.map((name) => name.length));
  const parts = Array.from({ length: longest }, (_, from) => (name: string) => part(name, letters, from));
  let best = (name: string): string => ends(name, letters);
  let told = new Set(long.map(best)).size;
  for (const way of parts) {
    if (told === long.length) break;
    const now = new Set(long.map(way)).size;
    if (now > told) [best, told] = [way, now];
  }
  return names.map((name) => (name.length > letters ? best(name) : name));
}
