/* What all parts of the script share: the page's data, and how its elements are found and made. */

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const data = JSON.parse($("#data").textContent);
const grid = $("#grid"), dialog = $("#larger");

const cards = [...grid.children];
const buttons = cards.map((card) => $("button", card));
const nextButtons = $$("#next-grid button");
const doubtButtons = $$("#contradicted button"); // after the cards in lists of names
const named = [...cards.map((card) => $(".name", card)), ...doubtButtons.map((button) => $(".said bdi", button))];
const names = named.map((shown) => shown.textContent);

const element = (tag, text, className) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};
// isolated, so that a name written from right to left does not turn the sentence around it
const isolated = (text) => `\u2068${text}\u2069`;
const className = (label) => isolated(data.classes[label]);
const counted = (number, [one, many]) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const thousandths = (value) => `${(value / 10).toFixed(1)}\u00a0%`;
const pictureOf = (button) => $("img, .gone", button).cloneNode(true);
const typing = (event) => event.target.matches("input:not([type=checkbox], [type=radio]), select, textarea");

/* One stop of the Tab key for many pictures; arrow keys move among them. */

function roving(container) {
  let stops = [];
  const stop = (button) => {
    for (const other of $$('button[tabindex="0"]', container)) other.tabIndex = -1;
    if (button) button.tabIndex = 0;
  };
  container.addEventListener("focusin", (event) => stop(event.target.closest("button")));
  container.addEventListener("keydown", (event) => {
    const place = stops.indexOf(event.target.closest("button"));
    if (place < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    let next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: stops.length - 1 }[event.key];
    if (event.key === "ArrowDown" || event.key === "ArrowUp") next = vertical(place, event.key === "ArrowDown" ? 1 : -1);
    if (next === undefined) return;
    event.preventDefault();
    if (stops[next]) stops[next].focus();
  });
  function vertical(place, step) {
    const from = stops[place].getBoundingClientRect();
    let row = null, best;
    for (let i = place + step; stops[i]; i += step) {
      const box = stops[i].getBoundingClientRect();
      if (Math.abs(box.top - from.top) < 2) continue;
      if (row !== null && Math.abs(box.top - row) > 2) break;
      row = box.top;
      const distance = Math.abs(box.left - from.left);
      if (best === undefined || distance < best[1]) best = [i, distance];
    }
    return best && best[0];
  }
  return {
    start(list) {
      stops = list;
      stop(stops[0]);
    },
  };
}
