// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Documents like /data/page.json for what no small network shows: hundreds of hosts, thousands of inner addresses,
// a full table. The same number makes the same document; the next number is a second later.

/** When all of them begin: some day in 2026. */
const STARTED = Date.UTC(2026, 2, 14, 9, 26, 53);
const INTERVAL = 5;
const COLUMNS = [
  ...["vni", "encap", "outer_local", "outer_remote", "inner_local", "inner_remote"],
  ...["window", "since", "total"].flatMap((of) => ["tx_pkts", "tx_bytes", "rx_pkts", "rx_bytes"].map((what) => `${of}_${what}`)),
];

/** 0 to 1, of a text and a number: the same each time (FNV-1a). */
function chance(text, number) {
  let hash = 0x811c9dc5;
  for (const char of `${text} ${number}`) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0;
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}

/** What a flow counts in so many seconds: `rate` packets a second each way, a little more or less. */
function figures(flow, seconds, moment) {
  const [there, back] = [0, 1].map((way) => Math.round(flow.rate * seconds * (0.8 + 0.4 * chance(flow.name + way, moment))));
  return [there, there * flow.size, back * flow.answers, back * flow.answers * (flow.size / 2)].map(Math.round);
}

function sum(rows, from) {
  const at = (place) => rows.reduce((all, row) => all + row[from + place], 0);
  return { tx_pkts: at(0), tx_bytes: at(1), rx_pkts: at(2), rx_bytes: at(3) };
}

const NOTHING = { tx_pkts: 0, tx_bytes: 0, rx_pkts: 0, rx_bytes: 0 };

function plus(...counts) {
  const of = (name) => counts.reduce((all, each) => all + each[name], 0);
  return { tx_pkts: of("tx_pkts"), tx_bytes: of("tx_bytes"), rx_pkts: of("rx_pkts"), rx_bytes: of("rx_bytes") };
}

/** A document of these flows, `number` seconds after the start. */
function documentOf(flows, number, more = {}) {
  const since = number % INTERVAL;
  const windows = Math.floor(number / INTERVAL);
  const rows = flows.map((flow) => {
    const window = windows > 0 ? figures(flow, INTERVAL, windows) : [0, 0, 0, 0];
    const after = figures(flow, since, windows + 1);
    const before = windows > 1 ? figures(flow, INTERVAL * (windows - 1), 0) : [0, 0, 0, 0];
    const total = window.map((figure, place) => figure + (after[place] ?? 0) + (before[place] ?? 0));
    return [flow.vni, flow.encap ?? "vxlan", ...flow.outer, ...(flow.inner ?? [null, null]), ...window, ...after, ...total];
  });
  const to = STARTED + windows * INTERVAL * 1000;
  const other = more.other ?? NOTHING;
  return {
    schema: "netbpf.tunnel_monitor.page/1",
    version: "0.1.0",
    run: "1",
    number,
    time: STARTED + number * 1000,
    started: STARTED,
    elapsed: number,
    interval: INTERVAL,
    simulation: true,
    namespace: "host0",
    interfaces: ["eth0"],
    ports: [4789],
    traffic: "sudo ./target/release/tunnel_monitor traffic",
    window: windows > 0 ? { from: to - INTERVAL * 1000, to, seconds: INTERVAL, age: since } : { from: to, to, seconds: 0, age: since },
    flows: rows.length,
    capacity: 65_536,
    totals: plus(sum(rows, 14), other),
    forgotten: NOTHING,
    forgotten_flows: 0,
    uncounted: { fragments: 0, multicast: 12, malformed: 0, not_tunnel: 40, table_errors: 0 },
    columns: COLUMNS,
    rest: { flows: 0, window: NOTHING, since: NOTHING, total: NOTHING },
    ...more,
    other,
    rows,
  };
}

function host(index) {
  return `172.16.${1 + Math.floor((100 + index) / 250)}.${(100 + index) % 250}`;
}

function flow(vni, remote, inner, rate, size, answers = 1) {
  return { name: `${vni} ${remote} ${inner}`, vni, outer: [host(0), host(remote)], inner, rate, size, answers };
}

/** The original's network and pings, host3 much louder than all others, and what talks without IP. */
function nineHosts() {
  const pings = [[0, 2, 1], [0, 3, 8], [0, 4, 1], [0, 5, 1], [0, 6, 1], [1, 2, 1], [1, 4, 6], [2, 2, 2], [2, 7, 8], [3, 8, 6], [3, 9, 6]];
  return [
    ...pings.map(([net, to, eighths]) =>
      flow(10_000 + net, to - 1, [`192.168.${net}.1`, `192.168.${net}.${to}`], to === 4 && net === 0 ? 180 : 1, 92 + 128 * eighths),
    ),
    { ...flow(10_000, 3, null, 0.4, 92), name: "arp" },
  ];
}

/** As in a data centre: each host's loudness is about half of that of the one before, then a long tail. */
function spreadOut(hosts, addresses) {
  return Array.from({ length: addresses }, (_, index) => {
    const remote = 1 + (index % (hosts - 1));
    const net = index % 4;
    const place = Math.floor(index / 4);
    // The same inner addresses in each network.
    const inner = [`10.0.${Math.floor(place / 200)}.${1 + (place % 200)}`, `10.1.${Math.floor(place / 200)}.${1 + (place % 200)}`];
    const rate = 1 + 4000 / (1 + index) ** 0.9 + 40 * chance("rate", index);
    return flow(10_000 + net, remote, inner, rate, 98 + Math.round(1400 * chance("size", index)), 0.2 + chance("answers", index));
  });
}

/** Fewer packets than one in a window are none: then nothing passes. */
function asleep(flows) {
  return flows.map((each) => ({ ...each, rate: 0 }));
}

const full = { flows: 65_536, other: { tx_pkts: 48_123, tx_bytes: 5_100_000, rx_pkts: 1_204, rx_bytes: 92_000 } };

/** By name: the number of the second gives the document. */
export const CASES = {
  empty: (number) => documentOf([], number, { uncounted: { fragments: 0, multicast: 0, malformed: 0, not_tunnel: 17, table_errors: 0 } }),
  "empty-interface": (number) =>
    documentOf([], number, { simulation: false, namespace: null, traffic: null, interfaces: ["eth0", "<img src=x onerror=alert(1)>"] }),
  "nine-hosts": (number) => documentOf(nineHosts(), number),
  quiet: (number) => documentOf(asleep(nineHosts()), number, { totals: { tx_pkts: 900, tx_bytes: 90_000, rx_pkts: 900, rx_bytes: 90_000 } }),
  full: (number) => documentOf(nineHosts(), number, full),
  "200-hosts": (number) => documentOf(spreadOut(200, 800), number),
  "2000-addresses": (number) => documentOf(spreadOut(200, 2000), number),
  "5000-addresses": (number) => documentOf(spreadOut(200, 5000), number),
};
