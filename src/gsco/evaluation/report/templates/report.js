(() => {
  const bar = document.querySelector(".filters");
  if (!bar) return;
  bar.hidden = false;
  const cards = [...document.querySelectorAll(".case")];
  const said = document.querySelector(".filter-count");
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-show]");
    if (!button) return;
    const want = button.dataset.show;
    let shown = 0;
    for (const card of cards) {
      const fits = want === "all" || card.dataset.tags.split(" ").includes(want);
      card.hidden = !fits;
      shown += fits;
    }
    for (const other of bar.querySelectorAll("button[data-show]"))
      other.setAttribute("aria-pressed", String(other === button));
    said.textContent = shown === 1 ? "1 case shown" : `${shown} cases shown`;
  });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.print-open")) details.open = true;
  });
})();
