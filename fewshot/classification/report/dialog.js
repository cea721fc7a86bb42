/* How the larger view is left, and turned to the next picture and back; `turn` is the page's own. */

$("#previous").addEventListener("click", () => turn(-1));
$("#next").addEventListener("click", () => turn(1));
$("#close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  if (event.key === "ArrowRight") turn(1);
  else if (event.key === "ArrowLeft") turn(-1);
});
