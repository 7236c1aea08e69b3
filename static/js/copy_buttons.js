// "Copy" buttons beside share links and API tokens. htmx may add links to the page at any time.

const FEEDBACK_MS = 3000;

function showButtons() {
  for (const button of document.querySelectorAll(".links .copy")) button.hidden = false;
}

document.addEventListener("click", async ({ target }) => {
  if (!target.matches(".links .copy")) return;
  const list = target.closest(".links");
  const address = target.closest("li").querySelector("input");
  address.select();
  let feedback = list.dataset.copied;
  try {
    await navigator.clipboard.writeText(address.value);
  } catch {
    feedback = list.dataset.selected; // browsers have no clipboard without https
  }
  document.getElementById("announcement").textContent = feedback;
  const label = target.textContent;
  target.textContent = feedback;
  target.disabled = true;
  setTimeout(() => {
    target.textContent = label;
    target.disabled = false;
  }, FEEDBACK_MS);
});

showButtons();
document.body.addEventListener("htmx:afterSettle", showButtons);
