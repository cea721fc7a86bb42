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

$("#previous").addEventListener("click", () => turn(-1));
$("#next").addEventListener("click", () => turn(1));
$("#close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  if (event.key === "ArrowRight") turn(1);
  else if (event.key === "ArrowLeft") turn(-1);
});
dialog.addEventListener("close", () => {
  if (dialog.open) return; // opened again before this was told
  const last = open;
  open = null;
  if (last !== null) buttons[last].focus();
});
