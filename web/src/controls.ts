// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The toolbar, the buttons and the keys that work everywhere.

import { byId, html, setText } from "./elements.js";
import { isForBrowser } from "./moves.js";
import { fromHash, THEMES, TOPS, type View } from "./view.js";
import { UNITS } from "./units.js";

export interface Doings {
  change(part: Partial<View>, isStep?: boolean): void;
  /** One step back: the search, then what is looked into. */
  step(): void;
  export(kind: string): void;
  reorder(): void;
}

export interface Controls {
  show(view: View): void;
}

/** Whether keys are for what is typed there. */
function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLInputElement ? target.type === "search" : target instanceof HTMLSelectElement;
}

export function bindControls(doings: Doings): Controls {
  const named = <E extends HTMLElement>(name: string): E => document.getElementsByName(name)[0] as E;
  const search = named<HTMLInputElement>("search");
  const grouped = named<HTMLInputElement>("grouped");
  const lists = { unit: UNITS, top: TOPS, theme: THEMES };
  const list = (name: keyof typeof lists): HTMLSelectElement => named<HTMLSelectElement>(name);
  for (const [name, choices] of Object.entries(lists)) {
    list(name as keyof typeof lists).replaceChildren(
      ...choices.map((choice) => {
        const option = html("option");
        option.value = option.textContent = String(choice);
        return option;
      }),
    );
  }
  let stopped = false;

  // The hash knows which values there are; what the form says goes through it.
  addEventListener("change", ({ target }) => {
    const { name, value } = target as HTMLInputElement;
    if (name === "grouped") doings.change({ grouped: grouped.checked });
    else if (name === "period" || name in lists) {
      const of = name as "period" | keyof typeof lists;
      doings.change({ [of]: fromHash(`${name}=${encodeURIComponent(value)}`)[of] });
    }
  });
  search.addEventListener("input", () => doings.change({ search: search.value.trim() }));

  byId("stop").addEventListener("click", () => doings.change({ stopped: !stopped }));
  byId("order").addEventListener("click", () => doings.reorder());
  byId("back").addEventListener("click", () => doings.change({ hosts: [], search: "" }, true));
  byId("clear").addEventListener("click", () => {
    doings.change({ network: null, hosts: [], search: "" }, true);
  });
  for (const button of document.querySelectorAll<HTMLElement>("[data-export]")) {
    button.addEventListener("click", () => doings.export(button.dataset.export ?? ""));
  }
  addEventListener("keydown", (event) => {
    if (isForBrowser(event)) return;
    if (event.key === "/" && !isTyping(event.target)) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "Escape") {
      doings.step();
    }
  });

  return {
    show(view) {
      stopped = view.stopped;
      for (const radio of document.querySelectorAll<HTMLInputElement>("[name=period]")) radio.checked = radio.value === view.period;
      for (const name of Object.keys(lists) as (keyof typeof lists)[]) list(name).value = String(view[name]);
      document.documentElement.dataset.theme = view.theme;
      grouped.checked = view.grouped;
      // What is being typed is not changed under the fingers: blanks at its end are no other search.
      if (search.value.trim() !== view.search) search.value = view.search;
      setText(byId("stop"), stopped ? "Start" : "Stop");
    },
  };
}
