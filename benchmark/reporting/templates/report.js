// Sorting and searching. Without it the page shows all it has.
"use strict";

const SEARCHED_FROM = 6;

function compare(one, other) {
  const [a, b] = [Number(one), Number(other)];
  if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
  return one.localeCompare(other, "en", { numeric: true });
}

// What has no value stands last, whichever way the column is sorted; sections stay together.
function sortBy(table, column, direction) {
  const valueOf = (row) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.firstChild?.textContent.trim() ?? "";
    return text === "–" ? "" : text;
  };
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("section"));
    const values = new Map(rows.map((row) => [row, valueOf(row)]));
    rows.sort((one, other) => {
      const [a, b] = [values.get(one), values.get(other)];
      return a === "" || b === "" ? (a === "") - (b === "") : direction * compare(a, b);
    });
    body.append(...rows);
  }
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.setAttribute("aria-sort", "none");
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const falls = before === "none" ? !head.classList.contains("left") : before === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      sortBy(table, column, falls ? -1 : 1);
    });
  });
}

// Every word must occur in a row.
function makeSearchable(table, holder) {
  const rows = [...table.querySelectorAll("tbody tr:not(.section)")];
  if (rows.length < SEARCHED_FROM) return;
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const line = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  line.className = "search";
  input.type = "search";
  input.setAttribute("aria-controls", holder.id);
  label.append("Search ", input);
  line.append(label, count);
  holder.querySelector(".scroll").before(line);
  const update = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => texts.get(row).includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  };
  input.addEventListener("input", update);
  update();
  count.setAttribute("aria-live", "polite");
}

// Paper has nothing to click on: what is folded is printed too.
window.addEventListener("beforeprint", () => {
  for (const item of document.querySelectorAll("details")) item.open = true;
});

for (const holder of document.querySelectorAll(".data")) {
  const table = holder.querySelector("table");
  makeSortable(table);
  makeSearchable(table, holder);
}
