// What a mix is: a fader, a pan and two switches a stem, and a master fader. Pure functions; the
// server renders the same mix from the same text (see "A mix as text" in docs/user-guide.md).
//
// A state is {master, speed, key, stems: {NAME: {volume, pan, mute, solo}}}: volumes 0–100 (see
// fader.js), pan -100 (left) to 100 (right), speed in percent, key in semitones.

import { FADER_RANGE, gainOf, UNITY } from "./fader.js";

export const PAN_RANGE = [-100, 100];
// Entries of the text that are not stems: name, minimum, maximum and neutral value.
const GLOBALS = [
  ["master", ...FADER_RANGE, UNITY],
  ["speed", 50, 150, 100],
  ["key", -12, 12, 0],
];

/** The names of those of a state's `stems` that are neither muted nor left out by a solo. */
export function audibleStems(stems) {
  const names = Object.keys(stems);
  const solo = names.some((name) => stems[name].solo);
  return names.filter((name) => !stems[name].mute && (!solo || stems[name].solo));
}

/** {NAME: gain} of every stem, 0 for those that are not audible. */
export function stemGains(state) {
  const audible = new Set(audibleStems(state.stems));
  const gain = ([name, { volume }]) => [name, audible.has(name) ? gainOf(volume) : 0];
  return Object.fromEntries(Object.entries(state.stems).map(gain));
}

/** The mix that changes nothing. */
export function neutralMix(names) {
  const stem = () => ({ volume: UNITY, pan: 0, mute: false, solo: false });
  return {
    ...Object.fromEntries(GLOBALS.map(([name, , , neutral]) => [name, neutral])),
    stems: Object.fromEntries(names.map((name) => [name, stem()])),
  };
}

/** The state that `text` describes, for stems called `names`; invalid entries are ignored. */
export function parseMix(text, names) {
  const state = neutralMix(names);
  for (const entry of text.split(",")) {
    const [name, ...values] = entry.split(":");
    if (names.includes(name)) {
      const stem = parseStem(values);
      if (stem) state.stems[name] = stem;
    } else {
      const [, ...range] = GLOBALS.find(([each]) => each === name) ?? [];
      const value = range.length && values.length === 1 ? integer(values[0], ...range) : null;
      if (value !== null) state[name] = value;
    }
  }
  return state;
}

function parseStem([volumeText = "", panText = "", flags = null, ...more]) {
  const volume = integer(volumeText, ...FADER_RANGE);
  const pan = integer(panText, ...PAN_RANGE);
  const isInvalid = flags !== null && !/^(m|s|ms|sm)$/.test(flags);
  if (volume === null || pan === null || isInvalid || more.length) return null;
  return { volume, pan, mute: /m/.test(flags ?? ""), solo: /s/.test(flags ?? "") };
}

/** `text` as an integer; null if it is none, or out of range. */
function integer(text, least, most) {
  if (!/^-?[0-9]{1,3}$/.test(text)) return null;
  const value = Number(text) + 0; // no -0
  return value >= least && value <= most ? value : null;
}

/** The text of `state`, without neutral values: "" for a mix that changes nothing. */
export function mixText(state) {
  const entries = [];
  for (const [name, { volume, pan, mute, solo }] of Object.entries(state.stems)) {
    const flags = (mute ? "m" : "") + (solo ? "s" : "");
    if (volume === UNITY && pan === 0 && !flags) continue;
    entries.push([name, volume, pan, ...(flags ? [flags] : [])].join(":"));
  }
  for (const [name, , , neutral] of GLOBALS) {
    if (state[name] !== neutral) entries.push(`${name}:${state[name]}`);
  }
  return entries.join(",");
}

/** `value`, or the limit that it exceeds. */
export function clamp(value, least, most) {
  return Math.min(Math.max(value, least), most);
}

/**
 * The mix's loudness before its master fader, in LUFS, estimated: the powers of the stems are added
 * as those of uncorrelated signals. -Infinity for silence.
 *
 * @param {Object<string, number>} loudness LUFS by stem, -Infinity or missing where it is silent
 */
export function mixLoudness(state, loudness) {
  let power = 0;
  for (const [name, gain] of Object.entries(stemGains(state))) {
    power += gain ** 2 * 10 ** ((loudness[name] ?? -Infinity) / 10);
  }
  return 10 * Math.log10(power);
}

/**
 * The gain at which the original is as loud as the mix (both go through the master fader), limited
 * to what keeps the original from clipping. 1 where the mix is silent or a loudness is unknown.
 *
 * @param {Object<string, number>} loudness LUFS by stem, and of the original as `mixture`
 * @param {number} [peak] the original's largest sample
 */
export function originalGain(state, loudness, peak = 0) {
  const difference = mixLoudness(state, loudness) - (loudness.mixture ?? NaN);
  const equal = Number.isFinite(difference) ? 10 ** (difference / 20) : 1;
  const headroom = 1 / (peak * gainOf(state.master)); // Infinity where the peak is unknown
  return Math.min(equal, headroom);
}
