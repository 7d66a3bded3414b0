"use strict";
// Turns the layers of each viewer into one stack: flicker and slider.
for (const viewer of document.querySelectorAll(".viewer")) {
  const stacks = [...viewer.querySelectorAll(".stack")];
  const shown = viewer.querySelector(".shown");
  const slider = viewer.querySelector("input[type=range]");
  const outlines = viewer.querySelector(".outlines");
  const value = (kind) => viewer.querySelector(`[data-choice=${kind}]:checked`).value;
  let over = true;

  function draw() {
    const [under, above] = value("pair").split(" ");
    const mode = value("mode");
    const sliding = mode === "slider";
    const visible = sliding || (mode === "flicker" ? over : mode === "second");
    for (const stack of stacks) {
      stack.classList.toggle("sliding", sliding);
      stack.classList.toggle("plain", !outlines.checked);
      for (const layer of stack.children) {
        layer.classList.toggle("under", layer.dataset.layer === under);
        layer.classList.toggle("over", layer.dataset.layer === above && visible);
      }
    }
    viewer.style.setProperty("--cut", sliding ? `${slider.value}%` : "0%");
    slider.disabled = !sliding;
    const names = { static: "static", before: "moving before", after: "moving after" };
    shown.textContent = sliding ? `${names[under]} | ${names[above]}` : names[visible ? above : under];
  }

  for (const stack of stacks) {
    stack.addEventListener("pointermove", (event) => {
      if (value("mode") !== "slider") return;
      const box = stack.getBoundingClientRect();
      slider.value = Math.round(100 * (event.clientX - box.left) / box.width);
      draw();
    });
  }
  viewer.addEventListener("input", draw);
  viewer.addEventListener("change", draw);
  setInterval(() => {
    if (value("mode") !== "flicker") return;
    over = !over;
    draw();
  }, 700);
  if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
    viewer.querySelector("[value=slider]").checked = true;
  }
  viewer.classList.add("active");
  draw();
}
for (const button of document.querySelectorAll("[data-select]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(document.getElementById(button.dataset.select));
  });
}
