"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse($("#data").textContent);
  const form = $("#filters"), field = form.elements, grid = $("#grid"), dialog = $("#larger");
  const plain = (text) => text.normalize("NFC").toLowerCase();
  const collator = new Intl.Collator("en", { numeric: true });

  const cards = [...grid.children];
  const buttons = cards.map((card) => $("button", card));
  const names = cards.map((card) => $(".name", card).textContent);
  const wanted = cards.map((card, i) => plain(`${names[i]} ${$(".text", card)?.textContent ?? ""}`));
  const supportButtons = $$(".support-pictures button");
  const supportNames = supportButtons.map((button) => $("bdi", button).textContent);
  const points = ["before", "after"].map((when) => $$(`#map-${when} .queries > *`));
  const others = $$(".map").map((svg) => [
    ...$$(".support > path", svg).map((drawn, i) => [drawn, data.supportLabels[i]]),
    ...$$(".centres > g", svg).map((drawn, label) => [drawn, label]),
    ...$$(".labels > text", svg).map((drawn, label) => [drawn, label]),
  ]).flat();
  let begun = false;
  let order = cards.map((_, i) => i);
  let visible = order;

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  // isolated, so that a name written from right to left does not turn the sentence around it
  const className = (label) => `\u2068${data.classes[label]}\u2069`;
  const thousandths = (value) => `${(value / 10).toFixed(1)}\u00a0%`;
  const pictureOf = (button) => $("img, .gone", button).cloneNode(true);

  /* Filters and order. They are kept in the address behind #, so that a view can be passed on. */

  const ORDERS = {
    sure: () => 0,
    unsure: (a, b) => b - a,
    moved: (a, b) => data.moved[b] - data.moved[a],
    novelty: (a, b) => data.novelty[b] - data.novelty[a],
    class: (a, b) => data.predicted[a] - data.predicted[b],
    name: (a, b) => collator.compare(names[a], names[b]),
  };
  const KEPT = ["class", "text", "min", "max", "order"], CHECKS = ["changed", "flagged"];

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
    for (const key of CHECKS) if (field[key]) field[key].checked = given.get(key) === "1";
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
    for (const key of CHECKS) if (field[key] && field[key].checked) kept.set(key, "1");
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
      && (!field.changed.checked || data.predicted[i] !== data.before[i])
      && (!field.flagged || !field.flagged.checked || data.flagged[i])
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
    const all = cards.length.toLocaleString("en"), some = visible.length.toLocaleString("en");
    let told = `Showing ${some} of ${all} ${data.things[cards.length === 1 ? 0 : 1]}.`;
    if (visible.length === cards.length) told = cards.length === 1 ? `Showing the only ${data.things[0]}.` : `Showing all ${all} ${data.things[1]}.`;
    $("#count").textContent = told;
    inGrid.start(visible.map((i) => buttons[i]));
    leave();
    if (remember) writeAddress();
  }

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
  const inGrid = roving(grid), inSupport = roving($(".classes"));

  /* The larger view: of a query i, or of support picture i. */

  let open = null, origin = null;

  function fill(i) {
    $("#larger-name").replaceChildren(element("bdi", names[i]));
    const facts = [`Class: ${className(data.predicted[i])}.`];
    if (data.before[i] !== data.predicted[i]) facts.push(`Before refinement: ${className(data.before[i])}.`);
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

  function present(button) {
    $(".frame", dialog).replaceChildren(pictureOf(button));
    if (!dialog.open) {
      origin = document.activeElement;
      dialog.showModal();
    }
    dialog.scrollTop = 0;
  }

  function enlarge(i) {
    open = i;
    $("#larger-bars").hidden = false;
    fill(i);
    present(buttons[i]);
    const place = visible.indexOf(i);
    $("#previous").hidden = $("#next").hidden = false;
    $("#previous").disabled = place <= 0;
    $("#next").disabled = place < 0 || place === visible.length - 1;
    writeAddress(i);
  }

  function enlargeSupport(i) {
    open = null;
    $("#larger-name").replaceChildren(element("bdi", supportNames[i]));
    $("#larger-facts").textContent = `Support ${data.things[0]} of the class ${className(data.supportLabels[i])}.`;
    $("#larger-bars").hidden = $("#previous").hidden = $("#next").hidden = true;
    present(supportButtons[i]);
  }

  function turn(step) {
    const next = open === null ? undefined : visible[visible.indexOf(open) + step];
    if (next === undefined) return;
    const focused = document.activeElement;
    enlarge(next);
    if (focused && focused.disabled) $("#close").focus();
  }

  $("#previous").addEventListener("click", () => turn(-1));
  $("#next").addEventListener("click", () => turn(1));
  $("#close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") turn(1);
    else if (event.key === "ArrowLeft") turn(-1);
  });
  dialog.addEventListener("close", () => {
    if (open !== null && grid.contains(origin) && !cards[open].hidden) buttons[open].focus();
    open = null;
    writeAddress();
  });
  buttons.forEach((button, i) => button.addEventListener("click", () => enlarge(i)));
  supportButtons.forEach((button, i) => button.addEventListener("click", () => enlargeSupport(i)));

  /* The maps: the picture nearest to the pointer, or stepped to by arrow keys, is named and shown. */

  let tip = null, here = null;

  function leave() {
    if (tip) tip.remove();
    if (here) here.remove();
    tip = here = null;
  }

  function drawnPoints() {
    const queries = visible.map((i) => ({ query: i, at: data.query[i] }));
    const support = data.support.map((at, i) => ({ support: i, at }));
    return queries.concat(support.filter(({ support: i }) => field.class.value === "" || data.supportLabels[i] === field.class.value - 1));
  }

  function point(svg, spot) {
    leave();
    const when = svg.id === "map-after" ? data.predicted : data.before;
    const isQuery = spot.query !== undefined;
    const button = isQuery ? buttons[spot.query] : supportButtons[spot.support];
    const text = isQuery
      ? `\u2068${names[spot.query]}\u2069: ${className(when[spot.query])}`
      : `\u2068${supportNames[spot.support]}\u2069: support of ${className(data.supportLabels[spot.support])}`;
    tip = element("div", undefined, "tip");
    tip.append(pictureOf(button), element("bdi", text));
    svg.parentNode.append(tip);
    const scale = svg.clientWidth / svg.viewBox.baseVal.width, [x, y] = spot.at;
    const room = svg.parentNode.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, x * scale + 12))}px`;
    const below = y * scale + 14, above = y * scale - tip.offsetHeight - 14;
    tip.style.top = `${above >= 0 ? above : below}px`;
    here = document.createElementNS(svg.namespaceURI, "circle");
    here.setAttribute("class", "here");
    here.setAttribute("cx", x);
    here.setAttribute("cy", y);
    here.setAttribute("r", 9);
    svg.append(here);
    $("#map-status").textContent = text;
  }

  const show = (spot) => (spot.query !== undefined ? enlarge(spot.query) : enlargeSupport(spot.support));

  function interactive(svg) {
    const plot = svg.parentNode;
    let spot = null;
    plot.tabIndex = 0;
    plot.setAttribute("role", "application");
    plot.setAttribute("aria-label", svg.getAttribute("aria-label"));
    const nearest = (event) => {
      const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      let best = null, limit = 14 * Math.max(1, scale);
      for (const candidate of drawnPoints()) {
        const distance = Math.hypot(candidate.at[0] - x, candidate.at[1] - y);
        if (distance < limit) [best, limit] = [candidate, distance];
      }
      return best;
    };
    const look = (event) => {
      spot = nearest(event);
      if (spot) point(svg, spot);
      else leave();
    };
    plot.addEventListener("pointermove", look);
    plot.addEventListener("pointerleave", leave);
    plot.addEventListener("blur", leave);
    plot.addEventListener("click", (event) => {
      look(event);
      if (spot) show(spot);
    });
    plot.addEventListener("keydown", (event) => {
      const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (event.key === "Escape") leave();
      if (event.key === "Enter" && spot && here) show(spot);
      if (!direction || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const candidates = drawnPoints();
      if (!spot || !here) spot = candidates[0] || null;
      else {
        let best = Infinity;
        const [x, y] = spot.at;
        for (const candidate of candidates) {
          const dx = candidate.at[0] - x, dy = candidate.at[1] - y;
          const along = dx * direction[0] + dy * direction[1], across = Math.abs(dx * direction[1]) + Math.abs(dy * direction[0]);
          if (along > 0 && along >= across / 2 && along + 2 * across < best) [spot, best] = [candidate, along + 2 * across];
        }
      }
      if (spot) point(svg, spot);
    });
  }

  const status = element("p", "", "hidden");
  status.id = "map-status";
  status.setAttribute("role", "status");
  $("#map").append(status);
  $$(".map").forEach(interactive);

  for (const button of [...buttons, ...supportButtons]) {
    button.disabled = false;
    button.tabIndex = -1;
  }
  inSupport.start(supportButtons);
  form.hidden = $("#hint").hidden = $("#map-hint").hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => apply());
  $("#all").addEventListener("click", () => {
    form.reset();
    apply();
  });
  window.addEventListener("hashchange", readAddress);
  window.addEventListener("beforeprint", () => { for (const folded of $$("details")) folded.open = true; });
  readAddress();
})();
