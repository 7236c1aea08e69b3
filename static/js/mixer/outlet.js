// Where the sound goes: straight out, or through the pitch shifter where speed or key ask for it.

import { createStretch, supported } from "./stretch.js";

export class Outlet {
  #context;
  #stretch = null; // from when it is first needed
  #coming = null;
  #target;
  #changed;
  #failed;

  /**
   * @param {AudioContext} context
   * @param {object} options
   * @param {() => void} options.changed called when the shifter has come: shift again
   * @param {() => void} options.failed called when it could not be had
   */
  constructor(context, { changed, failed }) {
    this.#context = context;
    this.#changed = changed;
    this.#failed = failed;
    this.#target = context.destination;
    this.input = new GainNode(context);
    this.input.connect(this.#target);
  }

  /** Whether pitch can be shifted in this browser, at this address. */
  get able() {
    return supported(this.#context);
  }

  /** Seconds from what goes in to what is heard. */
  get latency() {
    return this.#target === this.#context.destination ? 0 : this.#stretch.latency;
  }

  /** Shift by so many semitones, any number. False while the shifter is still on its way. */
  shift(semitones) {
    if (semitones && !this.#stretch) {
      this.#coming ??= this.#load();
      return false;
    }
    this.#stretch?.setSemitones(semitones);
    this.#lead(semitones ? this.#stretch.input : this.#context.destination);
    return true;
  }

  #lead(target) {
    if (target === this.#target) return;
    this.input.disconnect();
    this.input.connect(target);
    this.#target = target;
  }

  async #load() {
    try {
      this.#stretch = await createStretch(this.#context);
      this.#stretch.output.connect(this.#context.destination);
      this.#changed();
    } catch {
      this.#coming = null; // the next shift tries again
      this.#failed();
    }
  }
}
