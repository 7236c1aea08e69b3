// The player's output: straight to the speakers, or through the pitch shifter where speed or key
// need it.

/** Whether this page can shift pitch: it needs https (for AudioWorklet) and WebAssembly. */
export function canShiftPitch(context) {
  if (!context.audioWorklet) return false;
  try {
    new WebAssembly.Module(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0)); // the empty module
    return true;
  } catch {
    return false; // switched off in the browser, or forbidden by the content security policy
  }
}

export class PitchOutput {
  #context;
  #shifter = null; // made when it is first needed
  #loading = false;
  #target;
  #onLoad;
  #onError;

  /**
   * @param {AudioContext} context
   * @param {object} callbacks
   * @param {() => void} callbacks.onLoad called when the pitch shifter is there: call shift again
   * @param {() => void} callbacks.onError called when it cannot be loaded
   */
  constructor(context, { onLoad, onError }) {
    this.#context = context;
    this.#onLoad = onLoad;
    this.#onError = onError;
    this.#target = context.destination;
    this.input = new GainNode(context);
    this.input.connect(this.#target);
  }

  /** Whether pitch can be shifted in this browser, at this address. */
  get canShift() {
    return canShiftPitch(this.#context);
  }

  /** Seconds from `input` to the speakers. */
  get latency() {
    return this.#target === this.#context.destination ? 0 : this.#shifter.latency;
  }

  /** Shift by any number of semitones. False while the pitch shifter is being loaded. */
  shift(semitones) {
    if (semitones && !this.#shifter) {
      if (!this.#loading) this.#load();
      return false;
    }
    this.#shifter?.setSemitones(semitones);
    this.#connect(semitones ? this.#shifter.input : this.#context.destination);
    return true;
  }

  #connect(target) {
    if (target === this.#target) return;
    this.input.disconnect();
    this.input.connect(target);
    this.#target = target;
  }

  async #load() {
    this.#loading = true;
    try {
      const { createPitchShifter } = await import("./pitch_shifter.js");
      this.#shifter = await createPitchShifter(this.#context);
      this.#shifter.output.connect(this.#context.destination);
      this.#onLoad();
    } catch {
      this.#loading = false; // the next shift tries again
      this.#onError();
    }
  }
}
