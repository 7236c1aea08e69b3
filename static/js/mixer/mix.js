// What a mix is: a fader, a pan and two switches a stem, and a master fader. Pure functions; the
// server renders the same mix from the same text (see "The mixer" in the README).
//
// A state is {master, speed, key, stems: {NAME: {volume, pan, mute, solo}}}: volumes 0–100, pan
// -100 (left) to 100 (right), speed in percent, key in semitones.

const VOLUME = [0, 100];
const PAN = [-100, 100];
const NEUTRAL = 80; // the fader's position that leaves a level as it is
// Entries of the text that are not stems: name, least, most and usual value.
const GLOBALS = [
  ["master", ...VOLUME, NEUTRAL],
  ["speed", 50, 150, 100],
  ["key", -12, 12, 0],
];

/** The factor of a fader at `volume`: cubic, silence at 0, 1 at 80, +5.8 dB at 100. */
export function gainOf(volume) {
  return (volume / NEUTRAL) ** 3;
}

/** The names of the stems of `stems` (a state's) that are heard. */
export function audible(stems) {
  const names = Object.keys(stems);
  const solo = names.some((name) => stems[name].solo);
  return names.filter((name) => !stems[name].mute && (!solo || stems[name].solo));
}

/** {NAME: factor} of every stem, 0 for those that are not heard. */
export function stemGains(state) {
  const heard = new Set(audible(state.stems));
  const gain = ([name, { volume }]) => [name, heard.has(name) ? gainOf(volume) : 0];
  return Object.fromEntries(Object.entries(state.stems).map(gain));
}

/** The mix that leaves everything as it is. */
export function neutral(names) {
  const stem = () => ({ volume: NEUTRAL, pan: 0, mute: false, solo: false });
  return {
    ...Object.fromEntries(GLOBALS.map(([name, , , usual]) => [name, usual])),
    stems: Object.fromEntries(names.map((name) => [name, stem()])),
  };
}

/** The state that `text` says, for stems called `names`; entries that say nothing are passed over. */
export function parseMix(text, names) {
  const state = neutral(names);
  for (const entry of text.split(",")) {
    const [name, ...values] = entry.split(":");
    if (names.includes(name)) {
      const stem = parseStem(values);
      if (stem) state.stems[name] = stem;
    } else {
      const [, ...range] = GLOBALS.find(([each]) => each === name) ?? [];
      const value = range.length && values.length === 1 ? whole(values[0], ...range) : null;
      if (value !== null) state[name] = value;
    }
  }
  return state;
}

function parseStem([volumeText = "", panText = "", flags = null, ...more]) {
  const volume = whole(volumeText, ...VOLUME);
  const pan = whole(panText, ...PAN);
  const wrong = flags !== null && !/^(m|s|ms|sm)$/.test(flags);
  if (volume === null || pan === null || wrong || more.length) return null;
  return { volume, pan, mute: /m/.test(flags ?? ""), solo: /s/.test(flags ?? "") };
}

/** The integer that `text` is, or null: not one, or not within the range. */
function whole(text, least, most) {
  if (!/^-?[0-9]{1,3}$/.test(text)) return null;
  const value = Number(text) + 0; // no -0
  return value >= least && value <= most ? value : null;
}

/** The text of `state`, without what is as usual: "" for a mix that changes nothing. */
export function mixText(state) {
  const entries = [];
  for (const [name, { volume, pan, mute, solo }] of Object.entries(state.stems)) {
    const flags = (mute ? "m" : "") + (solo ? "s" : "");
    if (volume === NEUTRAL && pan === 0 && !flags) continue;
    entries.push([name, volume, pan, ...(flags ? [flags] : [])].join(":"));
  }
  for (const [name, , , usual] of GLOBALS) {
    if (state[name] !== usual) entries.push(`${name}:${state[name]}`);
  }
  return entries.join(",");
}

/**
 * About how loud the mix is before its master fader, in LUFS: stems as sounds that have nothing to
 * do with each other, whose powers add up. -Infinity for silence.
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
 * The factor at which the original is as loud as the mix (both go through the master fader), at
 * most what keeps it from clipping. A silent mix or an unknown loudness compares with nothing: 1.
 *
 * @param {Object<string, number>} loudness LUFS by stem, and of the original as `mixture`
 * @param {number} [peak] the original's largest sample
 */
export function originalGain(state, loudness, peak = 0) {
  const apart = mixLoudness(state, loudness) - (loudness.mixture ?? NaN);
  const equal = Number.isFinite(apart) ? 10 ** (apart / 20) : 1;
  const room = 1 / (peak * gainOf(state.master)); // Infinity where nothing is known to peak
  return Math.min(equal, room);
}
