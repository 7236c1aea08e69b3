// The mix's controls: a channel strip for each stem, master fader, speed, key and presets.

import { FADER_RANGE, gainOf } from "./fader.js";
import { clamp, mixText, neutralMix, parseMix } from "./mix.js";

const WHOLE_MIX = ["master", "speed", "key"];

export class MixControls {
  #strips;
  #names;
  #texts;
  #presets;
  #sliders;
  #onChange;
  #mix;

  /**
   * @param {Element[]} strips each with its stem's name in data-stem
   * @param {{left: string, right: string, centre: string}} texts
   * @param {(mix: object) => void} onChange called when a control was moved
   */
  constructor(strips, texts, onChange) {
    const byId = (id) => document.getElementById(id);
    this.#strips = strips;
    this.#names = strips.map((strip) => strip.dataset.stem);
    this.#texts = texts;
    this.#presets = byId("preset");
    this.#sliders = Object.fromEntries(WHOLE_MIX.map((name) => [name, byId(name)]));
    this.#onChange = onChange;
    for (const strip of strips) this.#listenToStrip(strip);
    for (const name of WHOLE_MIX) this.#listenToSlider(name);
    this.#presets.addEventListener("change", ({ target }) => {
      this.#change((mix) => (mix.stems = parseMix(target.value, this.#names).stems));
    });
  }

  /** Show a mix (a state of mix.js). */
  show(mix) {
    this.#mix = mix;
    const solo = Object.values(mix.stems).some((stem) => stem.solo);
    for (const strip of this.#strips) {
      const stem = mix.stems[strip.dataset.stem];
      strip.querySelector(".mute").setAttribute("aria-pressed", stem.mute);
      strip.querySelector(".solo").setAttribute("aria-pressed", stem.solo);
      strip.classList.toggle("unheard", stem.mute || (solo && !stem.solo));
      setSlider(strip.querySelector(".volume"), stem.volume, decibels(stem.volume));
      setSlider(strip.querySelector(".pan"), stem.pan, this.#panText(stem.pan));
    }
    const { master, speed, key } = this.#sliders;
    setSlider(master, mix.master, decibels(mix.master));
    setSlider(speed, mix.speed, `${mix.speed} %`);
    setSlider(key, mix.key, mix.key > 0 ? `+${mix.key}` : `${mix.key}`);
    for (const slider of [speed, key]) {
      document.getElementById(`${slider.id}-now`).textContent = slider.title;
    }
    const stemsOnly = mixText({ ...neutralMix(this.#names), stems: mix.stems });
    const isPreset = [...this.#presets.options].some(({ value }) => value === stemsOnly);
    this.#presets.value = isPreset ? stemsOnly : "own";
  }

  /** The strips of the stems that are not audible: muted, or not soloed where others are. */
  get inaudibleStrips() {
    return this.#strips.filter((strip) => strip.classList.contains("unheard"));
  }

  /** Move the master fader up, or down. */
  moveMaster(by) {
    this.#change((mix) => (mix.master = clamp(mix.master + by, ...FADER_RANGE)));
  }

  #listenToStrip(strip) {
    const { stem } = strip.dataset;
    const neutral = neutralMix(this.#names).stems[stem];
    const on = (selector, type, change) =>
      strip.querySelector(selector).addEventListener(type, ({ target }) => {
        this.#change((mix) => change(mix.stems[stem], target));
      });
    on(".mute", "click", (own) => (own.mute = !own.mute));
    on(".solo", "click", (own) => (own.solo = !own.solo));
    for (const name of ["volume", "pan"]) {
      on(`.${name}`, "input", (own, { value }) => (own[name] = Number(value)));
      on(`.${name}`, "dblclick", (own) => (own[name] = neutral[name]));
    }
  }

  #listenToSlider(name) {
    const slider = this.#sliders[name];
    slider.addEventListener("input", () => {
      this.#change((mix) => (mix[name] = Number(slider.value)));
    });
    slider.addEventListener("dblclick", () => {
      this.#change((mix) => (mix[name] = neutralMix(this.#names)[name]));
    });
  }

  #change(change) {
    change(this.#mix);
    this.#onChange(this.#mix);
  }

  #panText(pan) {
    const { left, right, centre } = this.#texts;
    return pan === 0 ? centre : `${Math.abs(pan)} % ${pan < 0 ? left : right}`;
  }
}

/** Move a slider, with `text` as its tooltip and for screen readers. */
function setSlider(slider, value, text) {
  if (Number(slider.value) !== value) slider.value = value;
  if (slider.title === text) return;
  slider.title = text;
  slider.setAttribute("aria-valuetext", text);
}

function decibels(volume) {
  const gain = gainOf(volume);
  if (gain === 0) return "−∞ dB";
  const text = (20 * Math.log10(gain)).toFixed(1);
  return `${text.replace("-0.0", "0.0").replace("-", "−")} dB`;
}
