// Sorting, searching, and two networks side by side. Without it the page shows all it has.
"use strict";

const SEARCHED_FROM = 6;

function valueOf(cell) {
  if ("none" in cell.dataset) return null;
  if (!("value" in cell.dataset)) return cell.textContent.trim();
  const number = Number(cell.dataset.value);
  return Number.isNaN(number) ? cell.dataset.value : number;
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
}

// What has no value stands last, whichever way the column is sorted; equals keep their order.
function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, value: valueOf(row.cells[column]) }));
  rows.sort((one, other) => {
    if (one.value === null || other.value === null) return (one.value === null) - (other.value === null);
    return direction * compare(one.value, other.value);
  });
  body.append(...rows.map((item) => item.row));
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const falls = before === "none" ? head.classList.contains("number") : before === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      sortBy(table, column, falls ? -1 : 1);
    });
  });
}

// Every word must occur in a row.
function makeSearchable(table, holder) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < SEARCHED_FROM) return;
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const line = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const told = document.createElement("output");
  line.className = "search";
  input.type = "search";
  input.setAttribute("aria-controls", holder.id);
  label.append("Search ", input);
  line.append(label, told);
  holder.prepend(line);
  const update = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const found = words.every((word) => texts.get(row).includes(word));
      row.hidden = !found;
      shown += found;
    }
    told.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  };
  input.addEventListener("input", update);
  update();
  told.setAttribute("aria-live", "polite");
}

function makeChoice() {
  const form = document.getElementById("choose");
  if (!form) return;
  const left = document.getElementById("choose-left");
  const right = document.getElementById("choose-right");
  const holder = document.getElementById("portraits");
  const portraits = [...holder.children];
  const show = () => {
    const two = right.value !== "" && right.value !== left.value;
    holder.classList.toggle("two", two);
    for (const item of portraits) {
      item.classList.toggle("left", item.id === left.value);
      item.classList.toggle("right", two && item.id === right.value);
      item.classList.toggle("only", !two && item.id === left.value);
    }
  };
  // Tables lead to a network by its place on the page, which may not be shown yet.
  const follow = () => {
    const wanted = decodeURIComponent(location.hash.slice(1));
    if (!portraits.some((item) => item.id === wanted)) return;
    left.value = wanted;
    show();
    document.getElementById("networks").scrollIntoView();
  };
  left.value = portraits[0].id;
  right.value = portraits.length > 1 ? portraits[1].id : "";
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", follow);
  show();
  follow();
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
makeChoice();
