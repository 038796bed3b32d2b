// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// From one picture to the next in a moment, unless the user wants nothing to move.

const MILLISECONDS = 350;

export class Tween {
  #frame = 0;
  readonly #still = matchMedia("(prefers-reduced-motion: reduce)");

  /** Calls `step` with 0 to 1, once with 1 when there is to be no motion. The one before ends where it is. */
  run(isMoving: boolean, step: (part: number) => void): void {
    cancelAnimationFrame(this.#frame);
    if (!isMoving || this.#still.matches || document.hidden) {
      step(1);
      return;
    }
    const started = performance.now();
    const next = (now: number): void => {
      const part = Math.min(1, Math.max(0, (now - started) / MILLISECONDS));
      // Slows down towards its end.
      step(1 - (1 - part) ** 3);
      if (part < 1) this.#frame = requestAnimationFrame(next);
    };
    this.#frame = requestAnimationFrame(next);
  }
}
