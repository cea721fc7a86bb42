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
    : `\u2068${supportNames[spot.support]}\u2069: labelled ${className(data.supportLabels[spot.support])}`;
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
