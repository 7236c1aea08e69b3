// The mixer's status line: why nothing is heard, that the mix clips, or a short message.

const MESSAGE_MS = 3000;

export class StatusLine {
  #element;
  #shown = "";
  #messageAt = -MESSAGE_MS; // when the last short message came

  constructor(element) {
    this.#element = element;
  }

  /** Show `text`, "" for none; a short message stays until its time is over. */
  show(text) {
    if (performance.now() - this.#messageAt < MESSAGE_MS) return;
    if (text !== this.#shown) this.#write(text);
  }

  /** Show a message for MESSAGE_MS, then call `after`. */
  flash(text, after) {
    this.#write(text);
    this.#messageAt = performance.now();
    setTimeout(after, MESSAGE_MS);
  }

  #write(text) {
    this.#element.textContent = this.#shown = text;
  }
}
