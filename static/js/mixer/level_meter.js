// A level meter: a bar that rises at once, falls slowly, and is red for a while after clipping.

const FLOOR_DB = -48; // the left end
const DECAY = 0.9; // a frame of the screen
const CLIP_HOLD_MS = 3000;

export class LevelMeter {
  #element;
  #clippedAt = -CLIP_HOLD_MS;

  /** @param {HTMLElement} element around the one that is the bar */
  constructor(element) {
    this.#element = element;
    element.level = 0;
  }

  /** Whether the level exceeded full scale in the last CLIP_HOLD_MS. */
  get isClipping() {
    return performance.now() - this.#clippedAt < CLIP_HOLD_MS;
  }

  /**
   * @param {number} peak the largest sample since the last call
   * @param {boolean} playing false: the bar drops to zero, as no frame follows to let it fall
   */
  show(peak, playing) {
    if (peak > 1) this.#clippedAt = performance.now();
    this.#element.level = playing ? Math.max(peak, this.#element.level * DECAY) : 0;
    const fraction = 1 - (20 * Math.log10(this.#element.level)) / FLOOR_DB;
    const scale = Math.min(1, Math.max(0, fraction));
    this.#element.firstElementChild.style.transform = `scaleX(${scale})`;
    this.#element.classList.toggle("over", this.isClipping);
  }
}
