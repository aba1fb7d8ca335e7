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
      // The first click puts the largest number, or the first word, on top; ranks begin with 1.
      const isNumber = column > 0 && !head.classList.contains("left");
      const falls = before === "none" ? isNumber : before === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      sortBy(table, column, falls ? -1 : 1);
    });
  });
}

// Every word must occur in a row. Rows of a part that is shown on demand are not counted.
function search(rows, input, count) {
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const counted = rows.filter((row) => !row.closest("[data-of]"));
  const update = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => texts.get(row).includes(word));
    const shown = counted.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${shown} of ${counted.length} rows` : `${counted.length} rows`;
  };
  input.addEventListener("input", update);
  update();
  count.setAttribute("aria-live", "polite");
}

const rowsOf = (holder) => [...holder.querySelectorAll("tbody tr:not(.section)")];

function makeSearchable(holder) {
  const rows = rowsOf(holder);
  if (rows.length < SEARCHED_FROM) return;
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
  search(rows, input, count);
}

// A box shows and hides its columns or tables; a section's heading is as wide as what is shown.
function showParts(boxes) {
  for (const box of boxes) {
    const items = document.querySelectorAll(`[data-of="${box.dataset.part}"]`);
    for (const item of items) item.hidden = !box.checked;
  }
  for (const heading of document.querySelectorAll(".section th")) {
    const cells = [...heading.closest("tbody").lastElementChild.cells];
    heading.colSpan = cells.filter((cell) => !cell.hidden).length;
  }
}

// Paper has nothing to click on: what is folded is printed too.
window.addEventListener("beforeprint", () => {
  for (const item of document.querySelectorAll("details")) item.open = true;
});

// A page has one search for all its tables, or each large table its own.
const tools = document.querySelector("main > .search");
for (const holder of document.querySelectorAll(".data")) {
  makeSortable(holder.querySelector("table"));
  if (!tools) makeSearchable(holder);
}
if (tools) {
  const boxes = [...tools.querySelectorAll("[data-part]")];
  for (const box of boxes) box.addEventListener("change", () => showParts(boxes));
  showParts(boxes);
  search(rowsOf(document), tools.querySelector("[type=search]"), tools.querySelector("output"));
}
