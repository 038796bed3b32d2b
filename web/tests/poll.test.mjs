// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only

import assert from "node:assert/strict";
import { test } from "node:test";
import { CASES } from "../browser/cases.mjs";
import { Poll } from "../modules/poll.js";

/** A poll in a time that passes when the test says so, with a server that answers by `answer`. */
function setUp(answer) {
  let now = 0;
  const timers = new Map();
  const seen = { samples: [], states: [], asked: [] };
  const around = {
    now: () => now,
    later(act, after) {
      const timer = {};
      timers.set(timer, { act, at: now + after });
      return timer;
    },
    never: (timer) => timers.delete(timer),
    fetch(address, { headers, signal }) {
      seen.asked.push({ address, tag: headers["If-None-Match"], at: now });
      return new Promise((done, fail) => {
        signal.addEventListener("abort", () => fail(new Error("aborted")));
        const made = answer(seen.asked.length, now);
        if (made instanceof Error) fail(made);
        else if (made !== null) done(made);
      });
    },
  };
  const told = { sample: (sample) => seen.samples.push(sample), state: (failure) => seen.states.push([now, failure]) };
  const poll = new Poll("data/page.json", told, around);
  const settle = () => new Promise((done) => setImmediate(done));
  const pass = async (milliseconds) => {
    const end = now + milliseconds;
    await settle();
    for (;;) {
      const due = [...timers].filter(([, { at }]) => at <= end).sort(([, one], [, other]) => one.at - other.at)[0];
      if (!due) break;
      const [timer, { act, at }] = due;
      timers.delete(timer);
      now = Math.max(now, at);
      act();
      await settle();
    }
    now = end;
  };
  return { poll, seen, pass };
}

function answer(status, body, tag) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return new Response(status === 304 ? null : text, { status, headers: tag ? { ETag: tag } : {} });
}

test("it asks each second with the tag of what it has", async () => {
  const { poll, seen, pass } = setUp((number) =>
    number % 2 === 1 ? answer(200, CASES["nine-hosts"](number), `"${number}"`) : answer(304),
  );
  poll.start();
  await pass(3500);
  assert.deepEqual(seen.asked.map(({ at }) => at), [0, 1000, 2000, 3000]);
  assert.deepEqual(seen.asked.map(({ tag }) => tag), [undefined, '"1"', '"1"', '"3"']);
  assert.deepEqual(seen.samples.map(({ number }) => number), [1, 3]);
  assert.ok(seen.states.every(([, failure]) => failure === null));
  assert.equal(poll.age(), 1500);
});

test("a failure is told at once, and all is well again by itself", async () => {
  const whole = CASES["nine-hosts"](9);
  const answers = [
    [() => answer(500, "no"), /HTTP 500/],
    [() => answer(404, whole), /HTTP 404/],
    [() => answer(200, JSON.stringify(whole).slice(0, -9), '"half"'), /cannot be read/],
    [() => answer(200, "[]", '"odd"'), /cannot be read/],
    [() => new TypeError("refused"), /does not answer/],
  ];
  const { poll, seen, pass } = setUp((number) => (number % 2 === 1 ? answer(200, whole, '"whole"') : answers[number / 2 - 1][0]()));
  poll.start();
  for (const [, words] of answers) {
    await pass(1000);
    assert.match(seen.states.at(-1)[1] ?? "", words);
    await pass(1000);
    assert.equal(seen.states.at(-1)[1], null);
  }
  // The tag of what could not be read is forgotten.
  assert.ok(seen.asked.slice(1).every(({ tag }) => tag === '"whole"'));
  assert.equal(seen.samples.length, 1 + answers.length);
});

test("a server that says nothing is told within five seconds of its last answer", async () => {
  let hangs = false;
  const { poll, seen, pass } = setUp((number) => (hangs ? null : answer(200, CASES.empty(number), `"${number}"`)));
  poll.start();
  await pass(500);
  hangs = true;
  await pass(4400);
  assert.match(seen.states.at(-1)[1], /does not answer/);
  assert.ok(poll.age() < 5000);
  hangs = false;
  await pass(4000);
  assert.equal(seen.states.at(-1)[1], null);
});

test("a monitor that answers, but has nothing new for long, is told too", async () => {
  const { poll, seen, pass } = setUp((number) => (number === 1 ? answer(200, CASES.empty(1), '"1"') : answer(304)));
  poll.start();
  await pass(3900);
  assert.equal(seen.states.at(-1)[1], null);
  await pass(1500);
  assert.match(seen.states.at(-1)[1], /nothing anew/);
  // Who comes back to a tab that was hidden for an hour is not told so at once.
  poll.stop();
  await pass(3_600_000);
  poll.start();
  await pass(500);
  assert.equal(seen.states.at(-1)[1], null);
});

test("after a stop nothing is asked nor told, until it is started", async () => {
  let release;
  const { poll, seen, pass } = setUp((number) => (number === 2 ? new Response(new ReadableStream({ start: (pieces) => (release = pieces) })) : answer(304)));
  poll.start();
  poll.start();
  await pass(1200);
  assert.equal(seen.asked.length, 2);
  poll.stop();
  release.enqueue(new TextEncoder().encode(JSON.stringify(CASES.empty(3))));
  release.close();
  await pass(5000);
  assert.equal(seen.asked.length, 2);
  assert.equal(seen.samples.length, 0);
  assert.equal(seen.states.length, 1);
  poll.start();
  await pass(2500);
  assert.equal(seen.asked.length, 5);
});

test("an answer that comes slowly is waited for, and one that stands still is not", async () => {
  let pieces;
  const { poll, seen, pass } = setUp(() => new Response(new ReadableStream({ start: (controller) => (pieces = controller) })));
  poll.start();
  const bytes = new TextEncoder().encode(JSON.stringify(CASES["nine-hosts"](9)));
  for (let from = 0; from < bytes.length; from += 500) {
    await pass(1500);
    pieces.enqueue(bytes.slice(from, from + 500));
  }
  pieces.close();
  await pass(10);
  assert.deepEqual(seen.samples.map(({ number }) => number), [9]);
  assert.equal(seen.states.at(-1)[1], null);
  assert.equal(seen.asked.length, 2);
});
