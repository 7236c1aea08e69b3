// What the parts that poll need beside htmx.

// Screen readers hear of a new stage once. The polled part itself is replaced every second, which would
// be announced every second or never.
const region = document.getElementById("announcement");
const current = () => document.querySelector("[data-announce]")?.textContent.trim() ?? "";
let said = current();

document.body.addEventListener("htmx:afterSettle", () => {
  if (current() === said) return;
  said = current();
  region.textContent = said;
});

// A song that was deleted in another tab is gone here too, and asked for no more.
document.body.addEventListener("htmx:responseError", ({ detail }) => {
  if (detail.xhr.status !== 404) return;
  if (detail.elt.matches(".card")) detail.elt.remove();
  else location.reload();
});
