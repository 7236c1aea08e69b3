// The form that gives out stems and mixes. It may come with a poll long after the page, so it is
// looked for each time.

import { mixText } from "./mix.js";

/**
 * @param {() => [number, number] | null} part what is marked in the song, in seconds
 * @param {string} making said of a file that is sent only once all of it is made
 */
export function listenToTakeaway(part, making) {
  document.addEventListener("click", ({ target }) => {
    if (target.id !== "marked") return;
    const { from, to } = target.form.elements;
    const most = Number(to.max);
    [from.value, to.value] = part().map((at) => Math.min(at, most).toFixed(2));
    announce(to);
  });
  document.addEventListener("submit", ({ target }) => {
    const waits = target.matches(".stems") && target.elements.format.value.startsWith("m4a");
    if (waits) document.getElementById("mix-level").textContent = making;
  });
}

/** Offer the marked part, if there is one. */
export function offerPart(part) {
  const button = document.getElementById("marked");
  if (button) button.disabled = !part;
}

/** Have the form ask for this mix: at its own speed and key, as all that is downloaded. */
export function tellForm(mix) {
  const field = document.querySelector("input[name=mix]");
  const text = mixText({ ...mix, speed: 100, key: 0 });
  if (!field || field.value === text) return;
  field.value = text;
  announce(field);
}

function announce(field) {
  field.dispatchEvent(new Event("change", { bubbles: true }));
}
