/* Labels that a person gives to pictures, with those that the run was given: choices, keys, undoing. */

const KEYS = 9;
const NONE = "none of these";
const nameOf = (i) => data.paths[i] ?? names[i]; // as predictions.csv has it
const doubtOf = (i) => data.contradicted[i - cards.length];
const canLabel = (i) => !doubtOf(i)?.[3];
const placeOf = new Map(names.map((_, i) => [nameOf(i), i]).filter(([, i]) => canLabel(i)));
const formerly = new Map(data.earlier); // by name a class, or null for none of the classes
const given = new Map(formerly);
const typed = []; // names of classes that were not there
const done = []; // for undoing: a name, and what it was given before

const hasLabel = (i) => given.has(nameOf(i));
const known = (label) => data.labels.indexOf(label);
const inWords = (label) => (label === null ? NONE : isolated(data.classes[known(label)] ?? label));
const few = () => data.labels.length + typed.length <= KEYS;
const first = (i) => doubtOf(i)?.slice(0, 2) ?? data.bars[i].slice(0, KEYS).map(([label]) => label);
const likely = (i) => first(i).map((label) => data.labels[label]);
const choices = (i) => [...(few() || !data.bars ? data.labels : likely(i)), ...typed];

function give(name, label) {
  done.push([name, given.get(name)]);
  put(name, label);
}

function put(name, label) {
  if (label === undefined) given.delete(name);
  else given.set(name, label);
  addTyped(label);
  const i = placeOf.get(name);
  if (i !== undefined) mark(i);
  tell(`${isolated(names[i] ?? name)}: ${label === undefined ? "no label" : inWords(label)}.`);
  keep();
}

function addTyped(label) {
  if (label !== null && label !== undefined && known(label) < 0 && !typed.includes(label)) typed.push(label);
}

function undo() {
  const last = done.pop();
  if (!last) return;
  put(...last);
  const i = placeOf.get(last[0]);
  if (open !== null && i !== undefined) enlarge(i, list.includes(i) ? list : doubtOf(i) ? doubtful : visible);
}

function mark(i) {
  for (const button of [buttons[i], nextButtons[data.next.indexOf(i)], doubtButtons[i - cards.length]]) {
    if (!button) continue;
    $(".mark.given", button)?.remove();
    const label = given.get(nameOf(i));
    if (label === formerly.get(nameOf(i))) continue;
    const tag = element("span", undefined, "mark given"), tick = element("span", "✓ ");
    tick.setAttribute("aria-hidden", "true");
    if (label === undefined) tag.append("label taken back");
    else tag.append(element("span", "your label: ", "hidden"), tick, element("bdi", inWords(label)));
    $(".verdict, .said", button).after(tag);
  }
}

/* The choices of the larger view. */

function offer(i) {
  const before = $$("#choices button"), focused = before.indexOf(document.activeElement);
  const option = (label, key) => {
    const made = element("button");
    made.type = "button";
    made.setAttribute("aria-pressed", hasLabel(i) && label === given.get(nameOf(i)));
    if (key !== undefined) {
      made.append(element("kbd", key));
      made.setAttribute("aria-keyshortcuts", key);
    }
    made.append(element("bdi", inWords(label)));
    if (known(label) === data.predicted?.[i]) made.append(element("span", "the answer", "note"));
    if (known(label) === doubtOf(i)?.[1]) made.append(element("span", "looks like it", "note"));
    made.addEventListener("click", () => choose(i, label));
    return made;
  };
  const offered = choices(i).map((label, place) => option(label, place < KEYS ? place + 1 : undefined));
  offered.push(option(null, 0));
  $("#choices").replaceChildren(...offered);
  $("#take-back").hidden = !hasLabel(i);
  $("#another").value = "";
  $("#another-name").textContent = offered.length > 1 ? "Another class" : "Class";
  $("#another-wrong").hidden = true;
  if (focused >= 0) (offered[focused] ?? offered[0]).focus();
}

/* Where the keys go: into the field while there is no class, unless that brings up a keyboard of the screen; and not to
a button that is disabled or hidden, which would leave them to nobody. */

function aim(i) {
  if (!choices(i).length && !matchMedia("(hover: none) and (pointer: coarse)").matches) $("#another").focus();
  else if (document.activeElement.matches("#larger :not(:disabled, [hidden] *)")) return;
  else dialog.focus();
}

function choose(i, label) {
  give(nameOf(i), label);
  if (turn(1)) return;
  enlarge(i, list);
  tellLast();
}

function tellLast() {
  for (const status of $$(".given-last")) status.textContent += " That was the last: save labels.csv.";
}

function chooseTyped() {
  const text = $("#another").value.trim();
  $("#another-wrong").hidden = text !== "-1"; // which stands for no label in a table
  if (!text || text === "-1") return;
  choose(open, meant(text));
  dialog.focus();
}

/* The label that a text stands for: a class of that name, or what its digit labels where no class is a digit. */

function meant(text) {
  const digit = /^[0-9]$/, offered = choices(open);
  if (data.classes.includes(text)) return data.labels[data.classes.indexOf(text)];
  if (!digit.test(text) || [...data.classes, ...typed].some((name) => digit.test(name))) return text;
  return text === "0" ? null : offered[text - 1] ?? text;
}

/* What a key does to a picture; whether it gave a label. */

function byKey(event, i) {
  if (typing(event) || event.altKey || event.isComposing || !canLabel(i)) return false;
  const control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
  if (event.repeat && /^[0-9]$/.test(key)) {
    event.preventDefault(); // a key that is held labels one picture
    return false;
  }
  if (control ? key === "z" : key === "u") undo();
  else if (control) return false;
  else if (event.key === "Delete" || event.key === "Backspace") hasLabel(i) && give(nameOf(i), undefined);
  else if (event.key === "0") give(nameOf(i), null);
  else if (/^[1-9]$/.test(event.key) && event.key <= choices(i).length) give(nameOf(i), choices(i)[event.key - 1]);
  else return false;
  event.preventDefault();
  return /^[0-9]$/.test(event.key);
}

$("#add-another").addEventListener("click", chooseTyped);
$("#another").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.isComposing) return; // Enter says which word of an input method is meant
  if (event.key === "Enter") chooseTyped();
  else if (!step || event.target.value) return;
  else turn(step);
  event.preventDefault();
});
$("#take-back").addEventListener("click", () => {
  give(nameOf(open), undefined);
  offer(open);
  $("#choices button").focus();
});
dialog.addEventListener("keydown", (event) => {
  const here = open;
  if (here === null || typing(event)) return;
  const labelled = byKey(event, here);
  if (labelled && turn(1)) return;
  if (open === here && event.defaultPrevented) offer(here);
  if (labelled) tellLast();
});
for (const [container, all, items] of [[grid, buttons, () => visible], [$("#next-grid"), nextButtons, () => data.next]]) {
  container?.addEventListener("keydown", (event) => {
    const place = all.indexOf(event.target.closest("button"));
    if (place < 0 || (/^[1-9]$/.test(event.key) && !few())) return; // of many classes the larger view shows the keys
    const i = all === buttons ? place : data.next[place];
    if (!byKey(event, i)) return;
    const following = items()[items().indexOf(i) + 1];
    if (following === undefined) tellLast();
    else (all === buttons ? buttons[following] : nextButtons[place + 1]).focus();
  });
}
