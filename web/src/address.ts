// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Addresses as numbers, so that networks can be compared: IPv4 and IPv6, as the server writes them.

/** A network: every address of the family whose first `prefix` bits are those of `bits`. */
export interface Network {
  readonly width: 32 | 128;
  readonly bits: bigint;
  readonly prefix: number;
}

function ipv4(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let bits = 0n;
  for (const part of parts) {
    // No leading zero: some readers take 010 for octal eight.
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    bits = (bits << 8n) | BigInt(part);
  }
  return bits;
}

function groups(text: string): string[] {
  return text === "" ? [] : text.split(":");
}

function ipv6(text: string): bigint | undefined {
  // The last two groups may be written as an IPv4 address (RFC 4291, 2.2).
  const dotted = /^(.*:)([^:]*\.[^:]*)$/.exec(text);
  let plain = text;
  if (dotted) {
    const low = ipv4(dotted[2] ?? "");
    if (low === undefined) return undefined;
    plain = `${dotted[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`;
  }
  const halves = plain.split("::");
  if (halves.length > 2) return undefined;
  const head = groups(halves[0] ?? "");
  const tail = groups(halves[1] ?? "");
  const missing = 8 - head.length - tail.length;
  // "::" stands for one group or more; without it all eight are there.
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  let bits = 0n;
  for (const group of [...head, ...Array<string>(missing).fill("0"), ...tail]) {
    if (!/^[0-9a-f]{1,4}$/i.test(group)) return undefined;
    bits = (bits << 16n) | BigInt(`0x${group}`);
  }
  return bits;
}

/** One address or ADDRESS/PREFIX; undefined where the text is neither. Bits behind the prefix count for nothing. */
export function network(text: string): Network | undefined {
  const [address = "", prefixText, ...rest] = text.trim().split("/");
  if (rest.length > 0) return undefined;
  const four = ipv4(address);
  const found = four ?? ipv6(address);
  if (found === undefined) return undefined;
  const width = four === undefined ? 128 : 32;
  const prefix = prefixText === undefined ? width : Number(prefixText);
  if (prefixText !== undefined && (!/^\d{1,3}$/.test(prefixText) || prefix > width)) return undefined;
  const behind = BigInt(width - prefix);
  return { width, prefix, bits: (found >> behind) << behind };
}

function dotted(bits: bigint): string {
  return [24n, 16n, 8n, 0n].map((behind) => (bits >> behind) & 255n).join(".");
}

/** As the server writes addresses (RFC 5952). */
function written({ width, bits }: Network): string {
  if (width === 32) return dotted(bits);
  if (bits >> 32n === 0xffffn) return `::ffff:${dotted(bits)}`;
  const long = Array.from({ length: 8 }, (_, place) => ((bits >> BigInt(112 - 16 * place)) & 0xffffn).toString(16)).join(":");
  const [zeros] = (long.match(/\b0(:0)+\b/g) ?? []).sort((one, other) => other.length - one.length);
  return zeros === undefined ? long : long.replace(new RegExp(`(^|:)${zeros}(:|$)`), "::");
}

/** The one spelling of what may be written in many: an address, or ADDRESS/PREFIX of a network. */
export function canonical(text: string): string | undefined {
  const found = network(text);
  if (!found) return undefined;
  return found.prefix === found.width ? written(found) : `${written(found)}/${found.prefix}`;
}

/** Whether an address, as text, is in the network; text that is no address is in none. */
export function contains(net: Network, address: string): boolean {
  const other = network(address);
  if (other === undefined || other.width !== net.width || other.prefix !== other.width) return false;
  const behind = BigInt(net.width - net.prefix);
  return other.bits >> behind === net.bits >> behind;
}

/** The /24 of an IPv4 address, by which the page groups; other text is its own group. */
export function slash24(address: string): string {
  return ipv4(address) === undefined ? address : `${address.slice(0, address.lastIndexOf("."))}.0/24`;
}
