// The form that downloads stems and mixes. A poll may add it long after the page was loaded, so
// each function looks it up again.

import { mixText } from "./mix.js";

/**
 * @param {() => [number, number] | null} selection the selected part of the song, in seconds
 * @param {string} making shown while the server makes a file that it can only send once complete
 */
export function listenToDownloadForm(selection, making) {
  document.addEventListener("click", ({ target }) => {
    if (target.id !== "marked") return;
    const { from, to } = target.form.elements;
    const most = Number(to.dataset.most);
    [from.value, to.value] = selection().map((at) => Math.min(at, most).toFixed(2));
    dispatchChange(to);
  });
  document.addEventListener("change", ({ target }) => {
    if (target.matches(".stems select[name=format]")) offerRates(target.form);
  });
  document.addEventListener("submit", ({ target }) => {
    if (!target.matches(".stems")) return;
    const [format] = target.elements.format.selectedOptions;
    if ("waits" in format.dataset) document.getElementById("mix-level").textContent = making;
  });
}

/** Offer the song's own sample rate only where the chosen format can have it. */
export function offerRates(form) {
  const rates = form.elements.sample_rate;
  if (!rates) return;
  const [format] = form.elements.format.selectedOptions;
  const own = [...rates.options].find(({ value }) => value === "song");
  own.disabled = "modelRate" in format.dataset;
  if (own.disabled) rates.value = "model";
}

/** Enable "the marked part" where there is a selection. */
export function offerSelection(selection) {
  const button = document.getElementById("marked");
  if (button) button.disabled = !selection;
}

/** Make the form download this mix; speed and key belong to the player, so they are left out. */
export function setDownloadedMix(mix) {
  const field = document.querySelector("input[name=mix]");
  const text = mixText({ ...mix, speed: 100, key: 0 });
  if (!field || field.value === text) return;
  field.value = text;
  dispatchChange(field);
}

function dispatchChange(field) {
  field.dispatchEvent(new Event("change", { bubbles: true }));
}
