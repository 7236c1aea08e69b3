// Tells screen readers about a new stage, once. The polled part itself is replaced every second, which
// would be announced every second or never.

const region = document.getElementById("announcement");
const current = () => document.querySelector("[data-announce]")?.textContent.trim() ?? "";
let said = current();

document.body.addEventListener("htmx:afterSettle", () => {
  if (current() === said) return;
  said = current();
  region.textContent = said;
});
