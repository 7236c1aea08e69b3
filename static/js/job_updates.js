// Follows htmx's polls of a job: screen readers, the tab's title and icon, a desktop notification.

// Screen readers announce a new stage once. The polled part itself, replaced every second, would be
// announced every second or never.
const region = document.getElementById("announcement");
const currentStage = () => document.querySelector("[data-announce]")?.textContent.trim() ?? "";
let announced = currentStage();

// The tab shows the progress.
const title = document.title;
const icon = document.querySelector("link[rel=icon]");
const originalIcon = icon.href;
const ICON_SIZE = 64;
let shownPercent = "";

function showProgressInTab() {
  const percent = document.getElementById("percent")?.textContent ?? "";
  if (percent === shownPercent) return;
  shownPercent = percent;
  document.title = percent ? `${percent} · ${title}` : title;
  icon.href = percent ? progressRing(parseFloat(percent) / 100) : originalIcon;
}

/** A ring that is filled by `fraction` (0 to 1), as a data: address. */
function progressRing(fraction) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = ICON_SIZE;
  const pen = canvas.getContext("2d");
  const middle = ICON_SIZE / 2;
  const style = getComputedStyle(document.documentElement);
  pen.lineWidth = ICON_SIZE / 5;
  for (const [colour, end] of [
    ["--line", 1],
    ["--accent", fraction],
  ]) {
    pen.strokeStyle = style.getPropertyValue(colour);
    pen.beginPath();
    pen.arc(middle, middle, middle - pen.lineWidth / 2, -Math.PI / 2, (2 * end - 0.5) * Math.PI);
    pen.stroke();
  }
  return canvas.toDataURL();
}

// A desktop notification when the song is done, on request. Browsers allow them on https only.
let notifyWhenDone = false;

function offerNotification() {
  const button = document.getElementById("notify");
  if (button && !notifyWhenDone && "Notification" in window && isSecureContext) {
    button.hidden = Notification.permission === "denied";
  }
}

function notify(text) {
  notifyWhenDone = false;
  try {
    new Notification(document.querySelector("h1").textContent, { body: text, icon: originalIcon });
  } catch {
    // Chrome on phones allows notifications from service workers only.
  }
}

document.addEventListener("click", async ({ target }) => {
  if (target.id !== "notify") return;
  notifyWhenDone = (await Notification.requestPermission()) === "granted";
  target.hidden = true;
});

function update() {
  showProgressInTab();
  offerNotification();
  const stage = currentStage();
  if (stage === announced) return;
  announced = stage;
  region.textContent = stage;
  if (notifyWhenDone && !shownPercent) notify(stage);
}

update();
document.body.addEventListener("htmx:afterSettle", update);

// A song that was deleted in another tab: remove its card, or reload its page, which says so.
document.body.addEventListener("htmx:responseError", ({ detail }) => {
  if (detail.xhr.status !== 404) return;
  if (detail.elt.matches(".card")) detail.elt.remove();
  else location.reload();
});
