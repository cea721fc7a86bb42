/* Last, where all parts are there. */

buttons.forEach((button, i) => button.addEventListener("click", () => enlarge(i)));
nextButtons.forEach((button, place) => button.addEventListener("click", () => enlarge(data.next[place], data.next)));
supportButtons.forEach((button, i) => button.addEventListener("click", () => enlargeSupport(i)));
doubtButtons.forEach((button, place) => button.addEventListener("click", () => enlarge(doubtful[place], doubtful)));
for (const button of [...buttons, ...nextButtons, ...doubtButtons, ...supportButtons]) {
  button.disabled = false;
  button.tabIndex = -1;
}
inSupport.start(supportButtons);
if (nextButtons.length) roving($("#next-grid")).start(nextButtons);
if (doubtButtons.length) roving($("#contradicted")).start(doubtButtons);
for (const hint of $$(".needs-script")) hint.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => apply());
$("#all").addEventListener("click", () => {
  form.reset();
  apply();
});
$("#since")?.addEventListener("click", () => setTimeout(() => $("#pictures").scrollIntoView()));
window.addEventListener("hashchange", () => {
  const folded = document.getElementById(location.hash.slice(1))?.querySelector("details");
  if (folded) folded.open = true;
  readAddress();
});
window.addEventListener("beforeprint", () => { for (const folded of $$("details")) folded.open = true; });
restore();
readAddress();
