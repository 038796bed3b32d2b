// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The elements that tunnel.html has, and how they are changed: only where something is different, so that
// neither the browser nor a screen reader has anything to do when all is as before.

/** The element of tunnel.html with this id. An error, which no user sees, names what it has not. */
export function byId<E extends Element = HTMLElement>(id: string): E {
  const found = document.getElementById(id);
  if (!found) throw new Error(id);
  return found as unknown as E;
}

export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element: Element, name: string, value: string): void {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** A new element of HTML. */
export function html<K extends keyof HTMLElementTagNameMap>(name: K, className = ""): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  if (className !== "") element.className = className;
  return element;
}

/** Gives a list an item for each line. */
export function setLines(parent: Element, lines: readonly string[]): void {
  lines.forEach((line, index) => setText(parent.children[index] ?? parent.appendChild(html("li")), line));
  while (parent.children.length > lines.length) parent.lastChild?.remove();
}

/** A new element of SVG. */
export function svg<K extends keyof SVGElementTagNameMap>(name: K, className = ""): SVGElementTagNameMap[K] {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  if (className !== "") element.setAttribute("class", className);
  return element;
}

/** Gives the parent these children in this order, and moves none that is in its place: a moved one loses the focus. */
export function arrange(parent: Element, children: readonly Element[]): void {
  const kept = new Set(children);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  children.forEach((child, index) => {
    const there = parent.children[index];
    if (there !== child) parent.insertBefore(child, there ?? null);
  });
}
