// The parts of the control room that refresh themselves leave open what the reader opened.

let opened = [];

document.body.addEventListener("htmx:beforeSwap", ({ detail }) => {
  opened = [...detail.target.querySelectorAll("details[open][id]")].map(({ id }) => id);
});

document.body.addEventListener("htmx:afterSwap", () => {
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
});
