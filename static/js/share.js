// "Copy" beside the links to a song. They come with the page or, when the song is done, with a poll.

const SAID = 3000; // milliseconds

function showButtons() {
  for (const button of document.querySelectorAll(".links .copy")) button.hidden = false;
}

document.addEventListener("click", async ({ target }) => {
  if (!target.matches(".links .copy")) return;
  const list = target.closest(".links");
  const address = target.closest("li").querySelector("input");
  address.select();
  let said = list.dataset.copied;
  try {
    await navigator.clipboard.writeText(address.value);
  } catch {
    said = list.dataset.selected; // no clipboard without https
  }
  document.getElementById("announcement").textContent = said;
  const label = target.textContent;
  target.textContent = said;
  target.disabled = true;
  setTimeout(() => {
    target.textContent = label;
    target.disabled = false;
  }, SAID);
});

showButtons();
document.body.addEventListener("htmx:afterSettle", showButtons);
