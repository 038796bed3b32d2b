// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Asks for the document each second, and says since when there has been no new one. Ten tabs that ask with
// If-None-Match cost next to nothing; a stream for each would take all of the browser's connections.

import { sample, type Sample } from "./sample.js";

/** Milliseconds from one question to the next. */
const PERIOD = 1000;
/**
 * An answer that has not begun by then, or stands still for so long, will not come. With it a banner comes within
 * 5 s of the last answer, and a slow link still gets its picture.
 */
const PATIENCE = 2000;
/** The monitor makes a new sample each second; when it has not for so long, it hangs. */
const OVERDUE = 4000;

export interface Told {
  sample(sample: Sample): void;
  /** Each second, and when something goes wrong: why there is nothing new, or null. */
  state(failure: string | null): void;
}

/** What a browser has, so that tests can have it too. */
export interface Around {
  fetch(address: string, options: RequestInit): Promise<Response>;
  now(): number;
  later(act: () => void, milliseconds: number): unknown;
  never(timer: unknown): void;
}

export class Poll {
  #tag: string | null = null;
  #timer: unknown = null;
  #running = false;
  /** Answers to questions of before a stop are not listened to. */
  #turn = 0;
  #fresh: number;

  readonly #address: string;
  readonly #told: Told;
  readonly #around: Around;

  constructor(address: string, told: Told, around: Around) {
    this.#address = address;
    this.#told = told;
    this.#around = around;
    this.#fresh = around.now();
  }

  /** Milliseconds since a new sample came. */
  age(): number {
    return this.#around.now() - this.#fresh;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#turn += 1;
    this.#ask(this.#turn, this.#around.now());
  }

  stop(): void {
    this.#running = false;
    this.#turn += 1;
    this.#around.never(this.#timer);
  }

  #ask(turn: number, since: number): void {
    const asked = this.#around.now();
    void this.#answer().then(
      (found) => {
        if (turn !== this.#turn) return;
        if (found) {
          this.#fresh = this.#around.now();
          this.#told.sample(found);
        }
        // Who has just begun to ask has not waited yet.
        const waited = Math.min(this.age(), this.#around.now() - since);
        this.#told.state(waited > OVERDUE ? "The monitor answers, but has counted nothing anew." : null);
        this.#again(turn, since, asked);
      },
      (error: unknown) => {
        if (turn !== this.#turn) return;
        this.#told.state(because(error));
        this.#again(turn, since, asked);
      },
    );
  }

  #again(turn: number, since: number, asked: number): void {
    const wait = Math.max(0, asked + PERIOD - this.#around.now());
    this.#timer = this.#around.later(() => this.#ask(turn, since), wait);
  }

  /** A new sample, or undefined when the last is still the last. */
  async #answer(): Promise<Sample | undefined> {
    const abort = new AbortController();
    let timer: unknown;
    const wait = (): void => {
      this.#around.never(timer);
      timer = this.#around.later(() => abort.abort(), PATIENCE);
    };
    wait();
    try {
      const headers: Record<string, string> = this.#tag === null ? {} : { "If-None-Match": this.#tag };
      const response = await this.#around.fetch(this.#address, { headers, cache: "no-store", signal: abort.signal });
      if (response.status === 304) return undefined;
      if (response.status !== 200) throw new Refused(`The monitor answers with HTTP ${response.status}.`);
      const [reader, decoder] = [response.body?.getReader(), new TextDecoder()];
      let text = "";
      for (let piece = await reader?.read(); piece?.value; piece = await reader?.read()) {
        wait();
        text += decoder.decode(piece.value, { stream: true });
      }
      const found = parsed(text);
      // Only now: half of an answer must be asked for again.
      this.#tag = response.headers.get("ETag");
      return found;
    } finally {
      this.#around.never(timer);
    }
  }
}

class Refused extends Error {}

function parsed(text: string): Sample {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    // Half of a document is as bad as another one.
  }
  const found = sample(document);
  if (!found) throw new Refused("The monitor's answer cannot be read.");
  return found;
}

function because(error: unknown): string {
  return error instanceof Refused ? error.message : "The monitor does not answer.";
}
