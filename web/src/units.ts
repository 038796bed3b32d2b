// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// How much, said in three digits. Prefixes are powers of 1000, of bytes too.

/** Counted, whoever sent it. */
export interface Amount {
  readonly pkts: number;
  readonly bytes: number;
}

export const UNITS = ["bit/s", "byte/s", "packets/s", "bytes", "packets"] as const;
export type Unit = (typeof UNITS)[number];

export const NOTHING: Amount = { pkts: 0, bytes: 0 };

export function plus(one: Amount, other: Amount): Amount {
  return { pkts: one.pkts + other.pkts, bytes: one.bytes + other.bytes };
}

/** The amount as the unit counts it, whatever the time: bits, bytes or packets. */
export function measure(amount: Amount, unit: Unit): number {
  if (unit === "packets/s" || unit === "packets") return amount.pkts;
  return unit === "bit/s" ? amount.bytes * 8 : amount.bytes;
}

function digits(value: number): string {
  let [scaled, prefix] = [value, ""];
  for (const next of ["k", "M", "G", "T", "P"]) {
    // 999.5 would be written as 1000.
    if (scaled < 999.5) break;
    [scaled, prefix] = [scaled / 1000, next];
  }
  const behind = Number.isInteger(scaled) && prefix === "" ? 0 : scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0;
  return `${scaled.toFixed(behind)} ${prefix}`;
}

const SYMBOLS: Record<Unit, string> = {
  "bit/s": "bit/s",
  "byte/s": "B/s",
  "packets/s": "pkt/s",
  bytes: "B",
  packets: "pkt",
};

function isRate(unit: Unit): boolean {
  return unit.endsWith("/s");
}

/** A measure of so many seconds in its unit: "1.25 Mbit/s". */
export function say(measured: number, unit: Unit, seconds: number): string {
  if (!isRate(unit)) return `${digits(measured)}${SYMBOLS[unit]}`;
  return `${digits(seconds > 0 ? measured / seconds : 0)}${SYMBOLS[unit]}`;
}

/** The same with what it adds up to, where the unit is a rate: "1.25 Mbit/s (782 kB)". */
export function sayBoth(measured: number, unit: Unit, seconds: number): string {
  const rate = say(measured, unit, seconds);
  if (!isRate(unit)) return rate;
  const whole = unit === "packets/s" ? say(measured, "packets", 1) : say(unit === "bit/s" ? measured / 8 : measured, "bytes", 1);
  return `${rate} (${whole})`;
}

/** "12 %"; what is there is never said to be nothing, nor what is not all of it to be all. */
export function share(part: number, whole: number): string {
  if (part <= 0 || whole <= 0) return "0 %";
  const percent = (100 * part) / whole;
  if (percent < 1) return "<1 %";
  return percent > 99 && percent < 100 ? ">99 %" : `${Math.round(percent)} %`;
}

/** The time of day, of milliseconds since 1970. */
export function clock(time: number): string {
  const date = new Date(time);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

/** "7 s", "3 min", "2 h", "5 d". */
export function length(seconds: number): string {
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}
