// Keyboard shortcuts for the whole page, except where the focused control uses the key itself.

const FIELDS = "input:not([type=range]), select, textarea, audio, video, [contenteditable]";
const PRESSED_BY_SPACE = "button, a, summary";
const SLIDER_KEYS = /^(Arrow|Page|Home|End)/;

/**
 * @param {Object<string, (event: KeyboardEvent) => void>} actions by the key's name; `digit` is
 *   called with the digit and the event, also where Shift makes another character of the key
 */
export function addShortcuts(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest(FIELDS) || document.querySelector("dialog[open]")) return;
    if (SLIDER_KEYS.test(event.key) && event.target.matches("input")) return;
    if (event.repeat && !SLIDER_KEYS.test(event.key)) return;
    if (event.key === " " && event.target.closest(PRESSED_BY_SPACE)) return;
    const digit = /^Digit([1-9])$/.exec(event.code)?.[1];
    const action = digit ? actions.digit : (actions[event.key] ?? actions[event.key.toLowerCase()]);
    if (!action) return;
    event.preventDefault();
    if (digit) action(Number(digit), event);
    else action(event);
  });
}
