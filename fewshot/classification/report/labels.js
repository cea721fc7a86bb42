/* Labels that a person gives: kept in the page, in the browser's storage where there is one, and saved as a table. */

const KEYS = 9;
const NONE = "none of these";
const given = new Map(); // of a query i its class by name, or null for none of the classes
const typed = []; // names of classes that were not there
const done = []; // for undoing: a query, and what it was given before
let saved = true;

const known = (label) => data.labels.indexOf(label);
const inWords = (label) => (label === null ? NONE : isolated(data.classes[known(label)] ?? label));
const few = () => data.labels.length + typed.length <= KEYS;
const choices = (i) => [...(few() || !data.bars ? data.labels : data.bars[i].slice(0, KEYS).map(([label]) => data.labels[label])), ...typed];

function give(i, label) {
  done.push([i, given.get(i)]);
  put(i, label);
}

function put(i, label) {
  if (label === undefined) given.delete(i);
  else given.set(i, label);
  saved = given.size === 0;
  mark(i);
  tell(label === undefined ? `${isolated(names[i])} has no label of yours.` : `${isolated(names[i])}: ${inWords(label)}.`);
  keep();
}

function undo() {
  const last = done.pop();
  if (!last) return;
  put(...last);
  if (open !== null) enlarge(last[0], list.includes(last[0]) ? list : visible);
}

function mark(i) {
  for (const button of [buttons[i], nextButtons[data.next.indexOf(i)]]) {
    if (!button) continue;
    $(".mark.given", button)?.remove();
    if (!given.has(i)) continue;
    const tag = element("span", undefined, "mark given");
    tag.append(element("span", "your label: ", "hidden"), element("span", "✓ ", "tick"), element("bdi", inWords(given.get(i))));
    $(".tick", tag).setAttribute("aria-hidden", "true");
    $(".verdict", button).after(tag);
  }
}

/* The choices of the larger view. */

function offer(i) {
  const inside = $("#choices").contains(document.activeElement) ? $$("#choices button").indexOf(document.activeElement) : -1;
  const now = given.get(i);
  const option = (label, key) => {
    const made = element("button"), chosen = label === now && given.has(i);
    made.type = "button";
    made.setAttribute("aria-pressed", chosen);
    if (key !== undefined) {
      made.append(element("kbd", key));
      made.setAttribute("aria-keyshortcuts", key);
    }
    made.append(element("bdi", inWords(label)));
    made.addEventListener("click", () => choose(i, label));
    return made;
  };
  const offered = choices(i).map((label, place) => option(label, place < KEYS ? place + 1 : undefined));
  offered.push(option(null, 0));
  $("#choices").replaceChildren(...offered);
  $("#take-back").hidden = !given.has(i);
  $("#another").value = "";
  if (inside >= 0) (offered[inside] ?? offered[0]).focus();
}

function choose(i, label) {
  give(i, label);
  if (open === i && !turn(1)) enlarge(i, list);
}

function chooseTyped() {
  const text = $("#another").value.trim(), i = open;
  if (!text || i === null) return;
  let label = data.labels[data.classes.indexOf(text)] ?? text;
  if (text === "-1") label = undefined;
  $("#another-wrong").hidden = label !== undefined;
  if (label === undefined) return;
  if (known(label) < 0 && !typed.includes(label)) typed.push(label);
  choose(i, label);
}

function byKey(event, i) {
  if (typing(event) || event.altKey) return false;
  const undoing = event.key === "u" || ((event.ctrlKey || event.metaKey) && event.key === "z");
  if (undoing) undo();
  else if (event.ctrlKey || event.metaKey) return false;
  else if (event.key === "Delete" || event.key === "Backspace") given.has(i) && give(i, undefined);
  else if (event.key === "0") give(i, null);
  else if (/^[1-9]$/.test(event.key) && event.key <= choices(i).length) give(i, choices(i)[event.key - 1]);
  else return false;
  event.preventDefault();
  return /^[0-9]$/.test(event.key);
}

$("#add-another").addEventListener("click", chooseTyped);
$("#another").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  chooseTyped();
});
$("#take-back").addEventListener("click", () => {
  give(open, undefined);
  offer(open);
  $("#choices button").focus();
});
dialog.addEventListener("keydown", (event) => {
  if (open === null) return;
  const here = open;
  if (byKey(event, here)) turn(1) || offer(here);
  else if (open === here) offer(here);
});
for (const [container, all, items] of [[grid, buttons, () => visible], [$("#next-grid"), nextButtons, () => data.next]]) {
  container?.addEventListener("keydown", (event) => {
    const place = all.indexOf(event.target.closest("button"));
    if (place < 0 || (/^[1-9]$/.test(event.key) && !few())) return; // which class a key stands for is shown in the larger view
    const i = all === buttons ? place : data.next[place];
    if (!byKey(event, i)) return;
    const following = items()[items().indexOf(i) + 1];
    if (following !== undefined) (all === buttons ? buttons[following] : nextButtons[place + 1]).focus();
  });
}

/* What was given: how many, a list of all, and the table as text. */

function tell(last) {
  const list = inOrder();
  const none = list.filter(([, label]) => label === null).length;
  const other = list.filter(([i, label]) => data.predicted && label !== null && known(label) !== data.predicted[i]).length;
  const parts = [other && `${other} unlike the answer`, none && `${none} ${NONE}`].filter(Boolean).join(", ");
  $("#given").hidden = !list.length && saved && !done.length;
  $("#given-count").textContent = `${counted(list.length, ["label", "labels"])} given${parts ? ` (${parts})` : ""}`
    + (list.length && !saved ? ", not saved yet." : list.length ? ", saved." : ".");
  for (const status of $$(".given-last")) status.textContent = last;
  for (const button of $$(".undo")) button.disabled = !done.length;
  $("#save").disabled = !list.length;
  $("#labels").hidden = !list.length;
  $("#given-list").replaceChildren(...list.map(([i, label]) => {
    const row = element("tr"), head = element("th"), cell = element("td"), end = element("td");
    head.scope = "row";
    head.append(element("bdi", names[i]));
    cell.append(element("bdi", inWords(label)));
    const back = element("button", "Take back");
    back.type = "button";
    back.setAttribute("aria-label", `Take back the label of ${names[i]}`);
    back.addEventListener("click", () => give(i, undefined));
    end.append(back);
    row.append(head, cell, end);
    return row;
  }));
  $("#labels-text").value = table();
}

/* As fewshot.files.csv_line writes a line: no cell is a formula for a spreadsheet. */
const FORMULA = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;
const NUMBER = /^[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|inf|nan)$/;

function cell(text) {
  const safe = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[\t\r\n,;|'"]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const inOrder = () => [...given].sort(([a], [b]) => data.number[a] - data.number[b]);

function table() {
  const path = (i) => data.paths[i] ?? names[i], list = inOrder();
  const here = new Set(list.map(([i]) => path(i)));
  const rows = [...data.earlier.filter(([name]) => !here.has(name)), ...list.map(([i, label]) => [path(i), label])];
  const lines = rows.map(([name, label]) => [cell(name), cell(label ?? ""), label === null]);
  return [[data.column, "label", "none_of_these"], ...lines].map((line) => `${line.join(",")}\r\n`).join("");
}

for (const button of $$(".undo")) button.addEventListener("click", undo);
$("#save").addEventListener("click", () => {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "labels.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  saved = true;
  tell("labels.csv went to your downloads.");
  keep();
});
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });

/* A mail program or a strict browser may have no storage; then labels live as long as the page. */

const store = `fewshot labels ${data.digest}`;

function keep() {
  try {
    const list = [...given].map(([i, label]) => [data.number[i], label]);
    if (list.length) localStorage.setItem(store, JSON.stringify({ saved, list }));
    else localStorage.removeItem(store);
  } catch { /* no storage, or a full one */ }
}

function restore() {
  let found = null;
  try {
    found = JSON.parse(localStorage.getItem(store));
  } catch { /* no storage, or not ours */ }
  if (!Array.isArray(found?.list)) return;
  for (const entry of found.list) {
    const [number, label] = Array.isArray(entry) ? entry : [], i = data.number.indexOf(number);
    if (i < 0 || (label !== null && (typeof label !== "string" || !label))) continue;
    if (label !== null && known(label) < 0 && !typed.includes(label)) typed.push(label);
    given.set(i, label);
    mark(i);
  }
  saved = !given.size || found.saved === true;
  if (given.size) tell("They were given in this page before.");
}
