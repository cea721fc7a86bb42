/* How many labels there are, a list of them, and the table: kept in the browser's storage, if any, and saved as a file. */

const rank = new Map(data.earlier.map(([name], place) => [name, place - data.earlier.length]));
const place = (name) => rank.get(name) ?? data.number[placeOf.get(name)] ?? -0.5;
const inOrder = () => [...given].sort(([a], [b]) => place(a) - place(b));
const asGiven = table(); // what the person has as a file already
let onDisk = asGiven, now = asGiven;
const saved = () => now === onDisk;

function tell(last = "") {
  const list = inOrder();
  now = table();
  const fresh = list.filter(([name]) => !rank.has(name));
  const corrected = list.filter(([name, label]) => rank.has(name) && formerly.get(name) !== label).length;
  const none = fresh.filter(([, label]) => label === null).length;
  const unlike = (i, label) => label !== null && !doubtOf(i) && data.predicted && known(label) !== data.predicted[i];
  const other = fresh.filter(([name, label]) => unlike(placeOf.get(name), label)).length;
  const parts = [other && `${other} unlike the answer`, none && `${none} ${NONE}`].filter(Boolean).join(", ");
  const kept = list.length - fresh.length;
  $("#given").hidden = now === asGiven && now === onDisk && !done.length;
  $("#given-count").textContent = `${counted(fresh.length, ["label", "labels"])} given${parts ? ` (${parts})` : ""}`
    + `${kept ? `, ${kept.toLocaleString("en")} of the table before` : ""}`
    + `${corrected ? ` (${corrected.toLocaleString("en")} corrected)` : ""}, ${saved() ? "saved" : "not saved yet"}.`;
  for (const status of $$(".given-last")) status.textContent = last;
  for (const button of $$(".undo")) button.disabled = !done.length;
  $("#save").disabled = !list.length;
  $("#labels").hidden = !list.length;
  $("#labels-text").value = now;
  fillList();
}

function fillList() {
  if (!$("#given-fold").open) return; // many labels make a long list
  $("#given-list").replaceChildren(...inOrder().map(([name, label]) => {
    const row = element("tr"), head = element("th"), said = element("td"), end = element("td");
    const back = element("button", "Take back"), shown = names[placeOf.get(name)] ?? name;
    head.scope = "row";
    head.append(element("bdi", shown));
    said.append(element("bdi", inWords(label)));
    back.type = "button";
    back.setAttribute("aria-label", `Take back the label of ${shown}`);
    back.addEventListener("click", () => give(name, undefined));
    end.append(back);
    row.append(head, said, end);
    return row;
  }));
}

$("#given-fold").addEventListener("toggle", fillList);

/* As fewshot.files.csv_line writes a line, in which no cell is a formula for a spreadsheet. */

function table() {
  const lines = inOrder().map(([name, label]) => [cell(name), cell(label ?? ""), label === null]);
  return [[data.column, "label", "none_of_these"], ...lines].map((line) => `${line.join(",")}\r\n`).join("");
}

function cell(text) {
  const formula = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text);
  const number = /^[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|inf|nan)$/.test(text);
  const safe = formula && !number ? `'${text}` : text;
  return /[\t\r\n,;|'"]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/* A mail program or a strict browser may have no storage; then labels live as long as the page. */

const store = `fewshot labels ${data.digest}`;

function keep() {
  try {
    if (now === asGiven && saved()) localStorage.removeItem(store);
    else localStorage.setItem(store, JSON.stringify({ saved: saved(), list: inOrder() }));
  } catch { /* no storage, or a full one */ }
}

function restore() {
  let found = null;
  try {
    found = JSON.parse(localStorage.getItem(store));
  } catch { /* no storage, or nothing of ours in it */ }
  if (Array.isArray(found?.list)) {
    given.clear();
    for (const entry of found.list) {
      const [name, label] = Array.isArray(entry) ? entry : [];
      if (!placeOf.has(name) && !rank.has(name)) continue;
      if (label !== null && (typeof label !== "string" || !label)) continue;
      addTyped(label);
      given.set(name, label);
    }
    if (found.saved === true) onDisk = table();
  }
  for (const name of [...given.keys(), ...formerly.keys()]) if (placeOf.has(name)) mark(placeOf.get(name));
  tell(found ? "They are from an earlier visit to this page." : "");
}

for (const button of $$(".undo")) button.addEventListener("click", undo);
$("#save").addEventListener("click", () => {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([now], { type: "text/csv" }));
  link.download = "labels.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  onDisk = now;
  tell("labels.csv is among your downloads.");
  keep();
});
window.addEventListener("beforeunload", (event) => { if (!saved()) event.preventDefault(); });
