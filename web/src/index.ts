// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The page of tunnel_monitor.

interface Sample {
  readonly rows: readonly (readonly (string | number | null)[])[];
}

async function draw(): Promise<void> {
  const answer = await fetch("data/page.json");
  const { rows } = (await answer.json()) as Sample;
  const lines = rows.slice(0, 100).map((row) => {
    const line = document.createElement("tr");
    for (const column of [0, 2, 3, 15, 17]) line.insertCell().textContent = String(row[column] ?? "");
    return line;
  });
  document.getElementById("rows")?.replaceChildren(...lines);
}

void draw();
