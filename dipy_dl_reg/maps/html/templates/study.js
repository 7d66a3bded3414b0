"use strict";
// Sorts the table by a click on a heading: first the bad values, then the good ones.
const body = document.querySelector("tbody");
const headings = [...document.querySelectorAll("th[data-first]")];
const read = (row, index) => row.cells[index].dataset.key;

function compare(first, second, numeric) {
  if (!numeric) return first.localeCompare(second, undefined, { numeric: true });
  return Number(first) - Number(second);
}

function sort(heading) {
  const index = heading.cellIndex;
  const numeric = heading.classList.contains("number");
  const sorted = heading.getAttribute("aria-sort");
  let up = heading.dataset.first === "ascending";
  if (sorted) up = sorted !== "ascending";
  const known = (row) => read(row, index) !== "";
  const rows = [...body.rows];
  rows.sort((a, b) => {
    if (known(a) !== known(b)) return known(a) ? 1 : -1;
    if (!known(a)) return 0;
    return (up ? 1 : -1) * compare(read(a, index), read(b, index), numeric);
  });
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
}

for (const heading of headings) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => sort(heading));
}
const search = document.querySelector("#search");
search.parentElement.hidden = false;
search.addEventListener("input", () => {
  const wanted = search.value.toLowerCase();
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
