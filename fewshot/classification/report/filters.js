/* Filters and order. They are kept in the address behind #, so that a view can be passed on. */

const form = $("#filters"), field = form.elements;
const plain = (text) => text.normalize("NFC").toLowerCase();
const collator = new Intl.Collator("en", { numeric: true });
const wanted = cards.map((card, i) => plain(`${names[i]} ${$(".text", card)?.textContent ?? ""}`));
const points = ["before", "after"].map((when) => $$(`#map-${when} .queries > *`));
const others = $$(".map").map((svg) => [
  ...$$(".support > path", svg).map((drawn, i) => [drawn, data.supportLabels[i]]),
  ...$$(".centres > g", svg).map((drawn, label) => [drawn, label]),
  ...$$(".labels > text", svg).map((drawn, label) => [drawn, label]),
]).flat();
const inGrid = roving(grid);
let begun = false;
let order = cards.map((_, i) => i);
let visible = order;

const ORDERS = {
  unsure: () => 0,
  sure: (a, b) => b - a,
  moved: (a, b) => data.moved[b] - data.moved[a],
  novelty: (a, b) => data.novelty[b] - data.novelty[a],
  class: (a, b) => data.predicted[a] - data.predicted[b],
  name: (a, b) => collator.compare(names[a], names[b]),
};
const KEPT = ["class", "text", "min", "max", "order"], CHECKS = {
  changed: (i) => data.predicted[i] !== data.before[i],
  since: (i) => data.since[i] !== null,
  flagged: (i) => data.flagged[i],
  given: (i) => hasLabel(i),
};

function readAddress() {
  const kept = location.hash.slice(1);
  if (document.getElementById(kept) && begun) return; // a link to a part of the page
  begun = true;
  const given = new URLSearchParams(kept);
  form.reset();
  for (const key of KEPT) {
    if (!given.has(key)) continue;
    const control = field[key], value = given.get(key);
    if (control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value)) control.value = value;
  }
  for (const key in CHECKS) if (field[key]) field[key].checked = given.get(key) === "1";
  const picture = data.number.indexOf(Number(given.get("picture")));
  apply(false);
  if (picture >= 0) enlarge(picture);
  else if (dialog.open) dialog.close();
}

function writeAddress(picture) {
  const kept = new URLSearchParams();
  for (const key of KEPT) {
    const control = field[key];
    const usual = control.tagName === "SELECT" ? control.options[0].value : control.defaultValue;
    if (control.value !== usual && control.value !== "") kept.set(key, control.value);
  }
  for (const key in CHECKS) if (field[key]?.checked) kept.set(key, "1");
  if (picture !== undefined) kept.set("picture", data.number[picture]);
  const text = kept.toString();
  try {
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  } catch { /* a page inside a mail program may have no address */ }
}

function apply(remember = true) {
  const label = field.class.value === "" ? -1 : Number(field.class.value) - 1;
  const low = field.min.value === "" ? 0 : Number(field.min.value);
  const high = field.max.value === "" ? 100 : Number(field.max.value);
  const text = plain(field.text.value.trim());
  const fits = (i) => (label < 0 || data.predicted[i] === label)
    && data.confidence[i] >= low && data.confidence[i] <= high
    && Object.keys(CHECKS).every((key) => !field[key]?.checked || CHECKS[key](i))
    && (!text || wanted[i].includes(text));
  const sorted = cards.map((_, i) => i).sort((a, b) => ORDERS[field.order.value](a, b) || a - b);
  if (sorted.some((i, place) => i !== order[place])) grid.append(...sorted.map((i) => cards[i]));
  order = sorted;
  visible = order.filter(fits);
  const shown = new Set(visible);
  cards.forEach((card, i) => {
    card.hidden = !shown.has(i);
    for (const drawn of points) drawn[i].classList.toggle("off", !shown.has(i));
  });
  for (const [drawn, of] of others) drawn.classList.toggle("off", label >= 0 && of !== label);
  $("#count").textContent = told();
  inGrid.start(visible.map((i) => buttons[i]));
  leave();
  if (remember) writeAddress();
}

function told() {
  const some = visible.length, here = cards.length, absent = data.total - here;
  if (some < here) {
    const elsewhere = absent ? ` on this page; ${absent.toLocaleString("en")} more are in ${isolated(data.table)} alone` : "";
    return `Showing ${some.toLocaleString("en")} of ${counted(here, data.things)}${elsewhere}.`;
  }
  if (absent) return `Showing ${here.toLocaleString("en")} of ${counted(data.total, data.things)}; ${isolated(data.table)} lists all.`;
  return here === 1 ? `Showing the only ${data.things[0]}.` : `Showing all ${counted(here, data.things)}.`;
}
