// The line in the mixer that says why nothing is heard, and other things worth a sentence.

const MOMENT = 3000; // milliseconds for which something is said that passes

export class Notice {
  #element;
  #said = "";
  #told = -MOMENT; // when something was said that passes

  constructor(element) {
    this.#element = element;
  }

  /** Say this until something else is to be said; "" for nothing. */
  hold(words) {
    if (performance.now() - this.#told < MOMENT) return;
    if (words !== this.#said) this.#say(words);
  }

  /** Say something for a moment; then call `after`. */
  tell(words, after) {
    this.#say(words);
    this.#told = performance.now();
    setTimeout(after, MOMENT);
  }

  #say(words) {
    this.#element.textContent = this.#said = words;
  }
}
