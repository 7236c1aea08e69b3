// What the parts that poll need beside htmx.

// Screen readers hear of a new stage once. The polled part itself is replaced every second, which would
// be announced every second or never.
const region = document.getElementById("announcement");
const current = () => document.querySelector("[data-announce]")?.textContent.trim() ?? "";
let said = current();

// The tab shows how far the song is, and its icon fills up.
const title = document.title;
const icon = document.querySelector("link[rel=icon]");
const picture = icon.href;
const ICON_SIZE = 64;
let shown = "";

function followProgress() {
  const percent = document.getElementById("percent")?.textContent ?? "";
  if (percent === shown) return;
  shown = percent;
  document.title = percent ? `${percent} · ${title}` : title;
  icon.href = percent ? ring(parseFloat(percent) / 100) : picture;
}

function ring(share) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = ICON_SIZE;
  const pen = canvas.getContext("2d");
  const middle = ICON_SIZE / 2;
  const style = getComputedStyle(document.documentElement);
  pen.lineWidth = ICON_SIZE / 5;
  for (const [colour, end] of [["--line", 1], ["--accent", share]]) {
    pen.strokeStyle = style.getPropertyValue(colour);
    pen.beginPath();
    pen.arc(middle, middle, middle - pen.lineWidth / 2, -Math.PI / 2, (2 * end - 0.5) * Math.PI);
    pen.stroke();
  }
  return canvas.toDataURL();
}

// Who wants to is told outside the page when the song is done (browsers ask for that only on https).
let tells = false;

function offerToTell() {
  const button = document.getElementById("notify");
  if (button && !tells && "Notification" in window && isSecureContext) {
    button.hidden = Notification.permission === "denied";
  }
}

document.addEventListener("click", async ({ target }) => {
  if (target.id !== "notify") return;
  tells = (await Notification.requestPermission()) === "granted";
  target.hidden = true;
});

function changed() {
  followProgress();
  offerToTell();
  if (current() === said) return;
  said = current();
  region.textContent = said;
  if (tells && !shown) {
    tells = false;
    try {
      new Notification(document.querySelector("h1").textContent, { body: said, icon: picture });
    } catch {
      // Chrome on phones knows notifications of service workers alone.
    }
  }
}

changed();
document.body.addEventListener("htmx:afterSettle", changed);

// A song that was deleted in another tab is gone here too, and asked for no more.
document.body.addEventListener("htmx:responseError", ({ detail }) => {
  if (detail.xhr.status !== 404) return;
  if (detail.elt.matches(".card")) detail.elt.remove();
  else location.reload();
});
