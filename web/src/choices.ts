// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// A list of which one or several can be chosen: networks, hosts.

import { arrange, byId, html, setAttribute, setText } from "./elements.js";

export interface Item {
  readonly id: string;
  readonly name: string;
  readonly amount: string;
  /** 0 to 1: how loud it is beside the loudest. */
  readonly part: number;
  readonly isChosen: boolean;
}

interface Drawn {
  readonly label: HTMLLabelElement;
  readonly input: HTMLInputElement;
  readonly name: HTMLElement;
  readonly amount: HTMLElement;
}

export class Choices {
  readonly #drawn = new Map<string, Drawn>();

  readonly #list: HTMLElement;
  readonly #kind: "radio" | "checkbox";
  readonly #choose: (id: string, isChosen: boolean) => void;

  constructor(list: HTMLElement, kind: "radio" | "checkbox", choose: (id: string, isChosen: boolean) => void) {
    this.#list = list;
    this.#kind = kind;
    this.#choose = choose;
  }

  draw(items: readonly Item[]): void {
    const known = new Set(items.map(({ id }) => id));
    for (const id of this.#drawn.keys()) if (!known.has(id)) this.#drawn.delete(id);
    const children = items.map((item) => {
      const drawn = this.#drawn.get(item.id) ?? this.#make(item.id);
      setText(drawn.name, item.name);
      setAttribute(drawn.name, "title", item.name);
      setText(drawn.amount, item.amount);
      drawn.input.checked = item.isChosen;
      drawn.label.style.setProperty("--part", item.part.toFixed(3));
      return drawn.label;
    });
    const hadFocus = this.#list.contains(document.activeElement);
    arrange(this.#list, children);
    // Who had it has gone: whoever goes on by keys is not sent back to the beginning of the page.
    if (hadFocus && !this.#list.contains(document.activeElement)) (this.#list.querySelector("input") ?? byId<HTMLElement>("chord")).focus();
  }

  #make(id: string): Drawn {
    const [label, input] = [html("label", "choice"), html("input")];
    const [name, amount] = [html("span", "name"), html("span", "amount")];
    input.type = this.#kind;
    input.name = this.#list.id;
    input.value = id;
    input.addEventListener("change", () => this.#choose(id, input.checked));
    label.append(input, html("span", "mark"), name, amount);
    const drawn = { label, input, name, amount };
    this.#drawn.set(id, drawn);
    return drawn;
  }
}
