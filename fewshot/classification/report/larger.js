/* The larger view: of a query i, among those it was opened from, or of labelled picture i. */

const supportButtons = $$(".support-pictures button");
const supportNames = supportButtons.map((button) => $("bdi", button).textContent);
const inSupport = roving($(".classes"));
const doubtful = doubtButtons.map((_, place) => cards.length + place);
let open = null, list = [], origin = null;

function fill(i) {
  $("#larger-name").replaceChildren(element("bdi", names[i]));
  const facts = [`Class: ${className(data.predicted[i])}.`];
  if (data.before[i] !== data.predicted[i]) facts.push(`Before looking at all ${data.things[1]}: ${className(data.before[i])}.`);
  if (data.since[i]) facts.push(`In the last run: ${isolated(data.since[i])}.`);
  if (data.classes.length > 1) facts.push(`Margin to the next class: ${thousandths(data.margin[i])}.`);
  if (data.novelty) {
    facts.push(`Unlikeness to every class: ${data.novelty[i]}, threshold ${data.threshold}${data.flagged[i] ? "; flagged as none of the classes" : ""}.`);
  }
  $("#larger-facts").textContent = facts.join(" ");
  const rows = data.bars[i].map(([label, old, now]) => [className(label), old, now]);
  const left = data.classes.length - rows.length;
  if (left > 0) {
    const rest = (column) => Math.max(0, 1000 - rows.reduce((sum, row) => sum + row[column], 0));
    rows.push([`${left} other class${left > 1 ? "es" : ""}`, rest(1), rest(2)]);
  }
  $("#larger-bars tbody").replaceChildren(...rows.map(([text, ...values]) => {
    const row = element("tr"), head = element("th");
    head.scope = "row";
    head.append(element("bdi", text));
    row.append(head, ...values.map((value) => {
      const cell = element("td", thousandths(value)), track = element("span", undefined, "track");
      const bar = element("span", undefined, "fill");
      bar.style.width = `${value / 10}%`;
      track.append(bar);
      cell.append(track);
      return cell;
    }));
    return row;
  }));
}

function fillDoubt(i) {
  const [label, other, probability, elsewhere] = doubtOf(i);
  const facts = [`Labelled ${data.things[0]} of the class ${className(label)}; it looks like ${className(other)} (${thousandths(probability)}).`];
  $("#larger-name").replaceChildren(element("bdi", names[i]));
  $("#larger-facts").textContent = [...facts, elsewhere].filter(Boolean).join(" ");
}

function present(button, { turns, labels, bars }) {
  $(".frame", dialog).replaceChildren(pictureOf(button));
  $("#larger-bars").hidden = !bars;
  $("#labelling").hidden = !labels;
  $("#previous").hidden = $("#next").hidden = !turns;
  if (!dialog.open) {
    origin = document.activeElement;
    dialog.showModal();
  }
  dialog.scrollTop = 0;
}

function enlarge(i, among = visible) {
  open = i;
  list = among;
  const doubt = doubtOf(i) !== undefined;
  (doubt ? fillDoubt : fill)(i);
  offer(i);
  present(doubt ? doubtButtons[i - cards.length] : buttons[i], { turns: true, labels: canLabel(i), bars: !doubt });
  const place = list.indexOf(i);
  $("#previous").disabled = place <= 0;
  $("#next").disabled = place < 0 || place === list.length - 1;
  aim(i);
  writeAddress(doubt ? undefined : i);
}

function enlargeSupport(i) {
  open = null;
  $("#larger-name").replaceChildren(element("bdi", supportNames[i]));
  $("#larger-facts").textContent = `Labelled ${data.things[0]} of the class ${className(data.supportLabels[i])}.`;
  present(supportButtons[i], {});
}

function turn(step) {
  const next = open === null ? undefined : list[list.indexOf(open) + step];
  if (next === undefined) return false;
  enlarge(next, list);
  return true;
}

dialog.addEventListener("close", () => {
  if (dialog.open) return; // opened again before this was told
  if (list === data.next && nextButtons.includes(origin)) nextButtons[data.next.indexOf(open)]?.focus();
  else if (list === doubtful && doubtButtons.includes(origin)) doubtButtons[open - cards.length]?.focus();
  else if (cards[open] && grid.contains(origin) && !cards[open].hidden) buttons[open].focus();
  open = null;
  writeAddress();
});
