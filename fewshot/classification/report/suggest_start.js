/* Last, where all parts are there. */

buttons.forEach((button, i) => {
  button.addEventListener("click", () => enlarge(i));
  button.disabled = false;
  button.tabIndex = -1;
});
inGrid.start(buttons);
for (const hint of $$(".needs-script")) hint.hidden = false;
restore();
