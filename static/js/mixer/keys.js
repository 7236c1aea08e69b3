// Keys for the whole page, which leave alone what has keys of its own.

const FIELDS = "input:not([type=range]), select, textarea, audio, video, [contenteditable]";
const PRESSED = "button, a, summary";
const SLIDES = /^(Arrow|Page|Home|End)/; // keys that sliders have

/**
 * @param {Object<string, (event: KeyboardEvent) => void>} actions by the key's name; `digit` is
 *   called with the digit and the event, whatever Shift makes of the key
 */
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest(FIELDS) || document.querySelector("dialog[open]")) return;
    if (SLIDES.test(event.key) && event.target.matches("input")) return;
    if (event.repeat && !SLIDES.test(event.key)) return;
    if (event.key === " " && event.target.closest(PRESSED)) return;
    const digit = /^Digit([1-9])$/.exec(event.code)?.[1];
    const action = digit ? actions.digit : actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    if (digit) action(Number(digit), event);
    else action(event);
  });
}
