// The controls of a mix: a strip for each stem, the master, speed, key and the presets.

import { gainOf, mixText, neutral, parseMix } from "./mix.js";

const WHOLE_MIX = ["master", "speed", "key"];

export class Panel {
  #strips;
  #names;
  #texts;
  #presets;
  #sliders;
  #changed;
  #mix;

  /**
   * @param {Element[]} strips each with its stem's name in data-stem
   * @param {{left: string, right: string, centre: string}} texts
   * @param {(mix: object) => void} changed called when the listener changed the mix
   */
  constructor(strips, texts, changed) {
    const byId = (id) => document.getElementById(id);
    this.#strips = strips;
    this.#names = strips.map((strip) => strip.dataset.stem);
    this.#texts = texts;
    this.#presets = byId("preset");
    this.#sliders = Object.fromEntries(WHOLE_MIX.map((name) => [name, byId(name)]));
    this.#changed = changed;
    for (const strip of strips) this.#listenToStrip(strip);
    for (const name of WHOLE_MIX) this.#listenToSlider(name);
    this.#presets.addEventListener("change", ({ target }) => {
      this.#change((mix) => (mix.stems = parseMix(target.value, this.#names).stems));
    });
  }

  /** Show a mix, as mix.js describes it. */
  show(mix) {
    this.#mix = mix;
    const solo = Object.values(mix.stems).some((stem) => stem.solo);
    for (const strip of this.#strips) {
      const stem = mix.stems[strip.dataset.stem];
      strip.querySelector(".mute").setAttribute("aria-pressed", stem.mute);
      strip.querySelector(".solo").setAttribute("aria-pressed", stem.solo);
      strip.classList.toggle("unheard", stem.mute || (solo && !stem.solo));
      set(strip.querySelector(".volume"), stem.volume, decibels(stem.volume));
      set(strip.querySelector(".pan"), stem.pan, this.#side(stem.pan));
    }
    const { master, speed, key } = this.#sliders;
    set(master, mix.master, decibels(mix.master));
    set(speed, mix.speed, `${mix.speed} %`);
    set(key, mix.key, mix.key > 0 ? `+${mix.key}` : `${mix.key}`);
    for (const slider of [speed, key]) {
      document.getElementById(`${slider.id}-now`).textContent = slider.title;
    }
    const stemsOnly = mixText({ ...neutral(this.#names), stems: mix.stems });
    const known = [...this.#presets.options].some(({ value }) => value === stemsOnly);
    this.#presets.value = known ? stemsOnly : "own";
  }

  /** The strips of stems that the mix leaves out. */
  get unheard() {
    return this.#strips.filter((strip) => strip.classList.contains("unheard"));
  }

  /** Turn the master up or down. */
  turn(by) {
    this.#change((mix) => (mix.master = Math.min(Math.max(mix.master + by, 0), 100)));
  }

  #listenToStrip(strip) {
    const { stem } = strip.dataset;
    const usual = neutral(this.#names).stems[stem];
    const on = (selector, type, change) =>
      strip.querySelector(selector).addEventListener(type, ({ target }) => {
        this.#change((mix) => change(mix.stems[stem], target));
      });
    on(".mute", "click", (own) => (own.mute = !own.mute));
    on(".solo", "click", (own) => (own.solo = !own.solo));
    for (const name of ["volume", "pan"]) {
      on(`.${name}`, "input", (own, { value }) => (own[name] = Number(value)));
      on(`.${name}`, "dblclick", (own) => (own[name] = usual[name]));
    }
  }

  #listenToSlider(name) {
    const slider = this.#sliders[name];
    slider.addEventListener("input", () => {
      this.#change((mix) => (mix[name] = Number(slider.value)));
    });
    slider.addEventListener("dblclick", () => {
      this.#change((mix) => (mix[name] = neutral(this.#names)[name]));
    });
  }

  #change(change) {
    change(this.#mix);
    this.#changed(this.#mix);
  }

  #side(pan) {
    const { left, right, centre } = this.#texts;
    return pan === 0 ? centre : `${Math.abs(pan)} % ${pan < 0 ? left : right}`;
  }
}

function set(slider, value, words) {
  if (Number(slider.value) !== value) slider.value = value;
  if (slider.title === words) return;
  slider.title = words;
  slider.setAttribute("aria-valuetext", words);
}

function decibels(volume) {
  const gain = gainOf(volume);
  if (gain === 0) return "−∞ dB";
  const text = (20 * Math.log10(gain)).toFixed(1);
  return `${text.replace("-0.0", "0.0").replace("-", "−")} dB`;
}
