"use strict";

// Numbers sort as numbers and before text; empty cells stay at the end in both directions.
function compareCells(a, b, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const [x, y] = [Number(a), Number(b)];
  const order = isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
  return order * direction;
}

function cellValue(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A run's opened details are a row of their own, which goes wherever its owner goes.
function dataRows(table) {
  return [...table.tBodies[0].rows].filter((row) => !row.classList.contains("opened"));
}

function withDetails(row) {
  const next = row.nextElementSibling;
  return next?.classList.contains("opened") ? [row, next] : [row];
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Scores are read from the top, so numeric columns begin with the highest.
      const numeric = head.classList.contains("n");
      const first = numeric ? "descending" : "ascending";
      const second = numeric ? "ascending" : "descending";
      const sort = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sort);
      const direction = sort === "ascending" ? 1 : -1;
      const rows = dataRows(table).map((row) => [cellValue(row, column), withDetails(row)]);
      rows.sort(([a], [b]) => compareCells(a, b, direction));
      table.tBodies[0].append(...rows.flatMap(([, together]) => together));
    });
  });
}

// Whatever says which task, data quality or agent it is about goes when another one is chosen.
// Numbers stand for names there, several where one row is about two agents.
const filters = document.getElementById("filters");
const choices = [...filters.querySelectorAll("select")];
const words = filters.querySelector("input");
const count = filters.querySelector("output");
const about = choices.map((choice) => [
  choice,
  [...document.querySelectorAll(`[data-${choice.name}]`)].map((item) => [
    item, item.dataset[choice.name].split(" "),
  ]),
]);

function filterRows() {
  const wanted = words.value.toLowerCase().split(/\s+/);
  for (const [, items] of about) for (const [item] of items) item.hidden = false;
  const rows = [...document.querySelectorAll("table.sortable")].flatMap(dataRows);
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
  }
  for (const [choice, items] of about) {
    if (choice.value === "") continue;
    for (const [item, values] of items) item.hidden ||= !values.includes(choice.value);
  }
  for (const row of rows) {
    for (const opened of withDetails(row).slice(1)) opened.hidden = row.hidden;
  }
  const shown = rows.filter((row) => !row.hidden).length;
  count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
}

filters.addEventListener("input", filterRows);
filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("reset", () => setTimeout(filterRows));
