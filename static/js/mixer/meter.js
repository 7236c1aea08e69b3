// A bar that follows a level: up at once, down slowly, red for a while after full scale was passed.

const FLOOR = -48; // dB, the left end
const FALL = 0.9; // a frame
const RED = 3000; // milliseconds

export class Meter {
  #element;
  #passed = -RED;

  /** @param {HTMLElement} element around the one that is the bar */
  constructor(element) {
    this.#element = element;
    element.level = 0;
  }

  /** Whether full scale was passed in the last seconds. */
  get over() {
    return performance.now() - this.#passed < RED;
  }

  /**
   * @param {number} peak the largest sample of late
   * @param {boolean} moving false once nothing plays: there is no frame after to fall in
   */
  show(peak, moving) {
    if (peak > 1) this.#passed = performance.now();
    this.#element.level = moving ? Math.max(peak, this.#element.level * FALL) : 0;
    const share = 1 - (20 * Math.log10(this.#element.level)) / FLOOR;
    this.#element.firstElementChild.style.transform = `scaleX(${Math.min(1, Math.max(0, share))})`;
    this.#element.classList.toggle("over", this.over);
  }
}
