// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Names that there is no room for in full.

/** Letters that all of them begin with. */
function alike(names: readonly string[]): number {
  const [first = ""] = names;
  let count = 0;
  while (count < first.length && names.every((name) => name[count] === first[count])) count += 1;
  return count;
}

function backwards(name: string): string {
  return [...name].reverse().join("");
}

/** Each in so many letters at most. Of those that are too long the part is shown by which they differ. */
export function shortened(names: readonly string[], letters: number): string[] {
  const long = [...new Set(names.filter((name) => name.length > letters))];
  const [ahead, behind] = long.length > 1 ? [alike(long), alike(long.map(backwards))] : [0, 0];
  return names.map((name) => {
    const { length } = name;
    if (length <= letters) return name;
    if (length - ahead < letters) return `…${name.slice(1 - letters)}`;
    if (length - behind < letters) return `${name.slice(0, letters - 1)}…`;
    if (length - behind - ahead < letters - 1) return `…${name.slice(ahead, ahead + letters - 2)}…`;
    // The ends of an address tell more than its middle.
    const end = Math.ceil((letters - 1) / 2);
    return `${name.slice(0, Math.max(1, letters - 1 - end))}…${name.slice(-end)}`;
  });
}
