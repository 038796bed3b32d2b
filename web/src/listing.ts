// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// From flows to pairs of ends: hosts, or what is inside the flows of those that are chosen.
// What is listed, what filters hide and what the document has no rows for add up to all.

import { contains, network, slash24 } from "./address.js";
import { SINCE, TOTAL, WINDOW, type Counts, type Row, type Sample } from "./sample.js";
import { search, type Search } from "./search.js";
import { NOTHING, plus, type Amount } from "./units.js";
import type { View } from "./view.js";

/** One who talks. Inner addresses mean something in their network only, so that it belongs to who they are. */
export interface End {
  readonly id: string;
  /** "192.168.0.1", "192.168.0.0/24", or "not IP 172.16.1.100". */
  readonly name: string;
  readonly network: string | null;
  /** What is searched for to see this end alone; null where it has no address. */
  readonly address: string | null;
}

export interface Pair {
  readonly id: string;
  readonly network: string | null;
  readonly a: End;
  readonly b: End;
  /** From a to b, and from b to a. */
  readonly sent: Amount;
  readonly received: Amount;
}

/** One of which one can be chosen: a network or a host. */
export interface Choice {
  readonly id: string;
  readonly amount: Amount;
}

/** The time that figures are of. */
export interface Span {
  readonly from: number;
  readonly to: number;
  readonly seconds: number;
}

export interface Listing {
  readonly span: Span;
  readonly inside: boolean;
  readonly pairs: readonly Pair[];
  readonly listed: Amount;
  readonly hidden: Amount;
  readonly unlisted: Amount;
  readonly total: Amount;
  /** All that the document knows, with traffic or not, whatever is chosen. */
  readonly networks: readonly Choice[];
  readonly hosts: readonly Choice[];
}

/** "vxlan/10000": the same number in another encapsulation is another network. */
export function networkOf(row: Row): string {
  return `${row[1]}/${row[0]}`;
}

/** How a network is written: "vxlan 10000"; "ipip" where there are no numbers. */
export function networkName(id: string): string {
  const [encap = "", vni = ""] = id.split("/");
  return encap === "ipip" || encap === "sit" ? encap : `${encap} ${vni}`;
}

/** Where there is little room: "10000" for the VXLAN of that number. */
export function shortNetwork(id: string): string {
  return id.replace(/^vxlan\//, "").replace(/^(ipip|sit)\/.*/, "$1").replace("/", " ");
}

/** Local sent, local received, in the period. */
function figures(row: Row, period: View["period"]): [sent: Amount, received: Amount] {
  const at = (from: number): [Amount, Amount] => [
    { pkts: row[from] as number, bytes: row[from + 1] as number },
    { pkts: row[from + 2] as number, bytes: row[from + 3] as number },
  ];
  if (period === "total") return at(TOTAL);
  const [sent, received] = at(WINDOW);
  if (period === "interval") return [sent, received];
  const [sentSince, receivedSince] = at(SINCE);
  return [plus(sent, sentSince), plus(received, receivedSince)];
}

export function bothWays(counts: Counts): Amount {
  return { pkts: counts.tx_pkts + counts.rx_pkts, bytes: counts.tx_bytes + counts.rx_bytes };
}

/** What a clock has said, as long as nobody has set it since: lengths are by one that nobody sets. */
function unlessSet(said: number, counted: number): number {
  return Math.abs(said - counted) < 1000 ? said : Math.round(counted);
}

export function span({ window, started, time, elapsed }: Sample, period: View["period"]): Span {
  const { from, seconds, age } = window;
  // Before the first window has ended, all that came has come since the start.
  if (period === "total" || (period === "now" && seconds === 0)) {
    return { from: unlessSet(started, time - elapsed * 1000), to: time, seconds: elapsed };
  }
  const began = unlessSet(from, time - (age + seconds) * 1000);
  if (period === "now") return { from: began, to: time, seconds: seconds + age };
  return { from: began, to: unlessSet(window.to, time - age * 1000), seconds };
}

/** What the document has no rows for. Only rows beyond the 10,000 are known by window. */
function unlisted(sample: Sample, period: View["period"]): Amount {
  const { rest, other, forgotten } = sample;
  if (period === "interval") return bothWays(rest.window);
  if (period === "now") return plus(bothWays(rest.window), bothWays(rest.since));
  return plus(bothWays(rest.total), plus(bothWays(other), bothWays(forgotten)));
}

/** Whether an outer address is among those chosen; answers are remembered, as rows have few different ones. */
function chooser(hosts: readonly string[]): (address: string) => boolean {
  const nets = hosts.flatMap((host) => network(host) ?? []);
  const known = new Map<string, boolean>();
  return (address) => {
    let chosen = known.get(address);
    if (chosen === undefined) {
      chosen = nets.some((net) => contains(net, address));
      known.set(address, chosen);
    }
    return chosen;
  };
}

/** The two ends of a flow, this side's first. */
function endsOf(row: Row, inside: boolean, grouped: boolean, known: Map<string, End>): [End, End] {
  const [, , outerLocal, outerRemote, innerLocal, innerRemote] = row;
  const within = inside ? networkOf(row) : null;
  const end = (inner: string | null, outer: string): End => {
    const address = inside ? inner : outer;
    const id = `${within ?? ""} ${address ?? `at ${outer}`}`;
    let found = known.get(id);
    if (!found) {
      const shown = address !== null && grouped ? slash24(address) : address;
      const name = shown ?? `not IP ${outer}`;
      found = { id: `${within ?? "host"} ${name}`, name, network: within, address: shown };
      known.set(id, found);
    }
    return found;
  };
  return [end(innerLocal, outerLocal), end(innerRemote, outerRemote)];
}

interface Gathered {
  network: string | null;
  a: End;
  b: End;
  sent: Amount;
  received: Amount;
  /** Both ends were this side's, in one flow or another. */
  mixed: boolean;
}

function isFound(row: Row, looked: Search): boolean {
  if (looked.vni !== undefined) return row[0] === looked.vni;
  const [, , outerLocal, outerRemote, innerLocal, innerRemote] = row;
  return [outerLocal, outerRemote, innerLocal, innerRemote].some((each) => each !== null && looked.matches(each));
}

function add(sums: Map<string, Amount>, id: string, amount: Amount): void {
  const before = sums.get(id);
  sums.set(id, before ? plus(before, amount) : amount);
}

/** Its name does not hang on which of its flows came first. */
function named({ network, a, b, sent, received, mixed }: Gathered): Pair {
  if (mixed && b.id < a.id) [a, b, sent, received] = [b, a, received, sent];
  return { id: `${a.id} ${b.id}`, network, a, b, sent, received };
}

/** All pairs with traffic in the period, of the flows that the view lets through. */
export function listing(sample: Sample, view: View): Listing {
  const inside = view.hosts.length > 0;
  const isChosen = chooser(view.hosts);
  // What is no search, as it is half typed, finds everything.
  const looked = view.search === "" ? undefined : search(view.search);
  const pairs = new Map<string, Gathered>();
  const networks = new Map<string, Amount>();
  const hosts = new Map<string, Amount>();
  const ends = new Map<string, End>();
  let [listed, hidden] = [NOTHING, NOTHING];
  for (const row of sample.rows) {
    const [sent, received] = figures(row, view.period);
    const amount = plus(sent, received);
    const within = networkOf(row);
    add(networks, within, amount);
    const isOfNetwork = view.network === null || view.network === within;
    const ofHosts = isOfNetwork ? amount : NOTHING;
    add(hosts, row[2], ofHosts);
    if (row[3] !== row[2]) add(hosts, row[3], ofHosts);
    const isShown =
      isOfNetwork && (!inside || isChosen(row[2]) || isChosen(row[3])) && (looked === undefined || isFound(row, looked));
    if (!isShown) {
      hidden = plus(hidden, amount);
      continue;
    }
    listed = plus(listed, amount);
    if (amount.pkts === 0) continue;
    const [local, remote] = endsOf(row, inside, view.grouped, ends);
    const id = `${local.id} ${remote.id}`;
    const same = pairs.get(id);
    // Seen from the other side, where two interfaces are monitored, it is the same pair.
    const turned = same ? undefined : pairs.get(`${remote.id} ${local.id}`);
    const pair = same ?? turned;
    if (!pair) {
      pairs.set(id, { network: inside ? within : null, a: local, b: remote, sent, received, mixed: false });
      continue;
    }
    pair.sent = plus(pair.sent, turned ? received : sent);
    pair.received = plus(pair.received, turned ? sent : received);
    if (turned) pair.mixed = true;
  }
  const without = unlisted(sample, view.period);
  return {
    span: span(sample, view.period),
    inside,
    pairs: [...pairs.values()].map(named),
    listed,
    hidden,
    unlisted: without,
    total: plus(plus(listed, hidden), without),
    networks: [...networks].map(([id, amount]) => ({ id, amount })),
    hosts: [...hosts].map(([id, amount]) => ({ id, amount })),
  };
}
