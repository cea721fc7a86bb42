/* The larger view of a page that asks for labels: one picture after the other. */

const inGrid = roving(grid);
const visible = cards.map((_, i) => i);
let open = null, list = visible;

function enlarge(i) {
  open = i;
  $("#larger-name").replaceChildren(element("bdi", names[i]));
  $("#larger-facts").textContent = `${data.why[i]}.`;
  offer(i);
  $(".frame", dialog).replaceChildren(pictureOf(buttons[i]));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  $("#previous").disabled = i === 0;
  $("#next").disabled = i === buttons.length - 1;
  aim(i);
}

function turn(step) {
  const next = visible[visible.indexOf(open) + step];
  if (open === null || next === undefined) return false;
  enlarge(next);
  return true;
}

dialog.addEventListener("close", () => {
  if (dialog.open) return; // opened again before this was told
  const last = open;
  open = null;
  if (last !== null) buttons[last].focus();
});
