"use strict";
const body = document.querySelector("tbody");
const rows = [...body.rows];
const headings = [...document.querySelectorAll("th")];
const text = document.querySelector("input[type=search]");
const boxes = [...document.querySelectorAll("input[type=checkbox]")];
const shown = document.querySelector("output");
const words = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));

function sort(heading) {
  const index = headings.indexOf(heading);
  const isNumber = heading.dataset.number === "1";
  // The first click on a number brings the largest one up: that is what matters.
  const before = heading.getAttribute("aria-sort");
  const direction = before === "none" ? (isNumber ? "descending" : "ascending")
    : before === "ascending" ? "descending" : "ascending";
  const key = row => row.cells[index].dataset.sort;
  const compare = isNumber ? (a, b) => key(a) - key(b) : (a, b) => key(a).localeCompare(key(b), "en", {numeric: true});
  const sign = direction === "ascending" ? 1 : -1;
  headings.forEach(each => each.setAttribute("aria-sort", each === heading ? direction : "none"));
  body.append(...rows.sort((a, b) => sign * compare(a, b)));
}

function filter() {
  const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdicts = new Set(boxes.filter(box => box.checked).map(box => box.value));
  let count = 0;
  for (const row of rows) {
    row.hidden = !(verdicts.has(row.dataset.verdict) && wanted.every(word => words.get(row).includes(word)));
    count += !row.hidden;
  }
  shown.value = `${count} of ${rows.length} shown`;
}

headings.forEach(heading => heading.querySelector("button").addEventListener("click", () => sort(heading)));
text.addEventListener("input", filter);
boxes.forEach(box => box.addEventListener("change", filter));
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
document.querySelector("form").hidden = false;
filter();  // A browser may keep what was typed when the page is loaded again.
