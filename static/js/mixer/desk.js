// The mixing desk: native nodes alone, for worklets need https and this also runs on plain http.
//
//   sources → gain → pan ┬→ mix ──┐
//                        └ meter  ├→ master → gate ┬→ output
//   original → gain ┬─────────────┘                └ meter
//                   └ meter

import { gainOf, stemGains } from "./mix.js";

export const CHANNELS = 2;
export const MIXTURE = "mixture";

const METERED = 2048; // frames: 46 ms
const SMOOTH = 0.015; // seconds, for faders and switches
const CROSSFADE = 0.02; // between the mix and the original
const FADE = 0.006; // where playing starts, stops or jumps

export class Desk {
  #context;
  #mix;
  #master;
  #strips = new Map(); // name → {input, pan}; the original's has no pan
  #meters = new Map();
  #targets = new Map(); // AudioParam → where it goes
  #samples = new Float32Array(METERED);

  constructor(context, stems) {
    this.#context = context;
    this.gate = new Gate(context);
    this.output = this.gate.node;
    this.#meter("master", this.output);
    this.#master = this.#gain(1, this.output);
    this.#mix = this.#gain(1, this.#master);
    for (const name of stems) {
      const pan = new StereoPannerNode(context);
      pan.connect(this.#mix);
      this.#meter(name, pan);
      this.#strips.set(name, { input: this.#gain(1, pan), pan });
    }
    const input = this.#gain(0, this.#master);
    this.#meter(MIXTURE, input);
    this.#strips.set(MIXTURE, { input });
  }

  /** Where sources of a stem are connected to. */
  input(name) {
    return this.#strips.get(name).input;
  }

  /** Set all faders, pans and switches; smoothly where something `sounds`. */
  setMix(state, sounds) {
    for (const [name, gain] of Object.entries(stemGains(state))) {
      const { input, pan } = this.#strips.get(name);
      this.#glide(input.gain, gain, sounds && SMOOTH);
      this.#glide(pan.pan, state.stems[name].pan / 100, sounds && SMOOTH);
    }
    this.#glide(this.#master.gain, gainOf(state.master), sounds && SMOOTH);
  }

  /** From the mix to the original at `gain`, or to the mix where that is 0. */
  crossfade(gain, sounds, time = this.#context.currentTime) {
    this.#glide(this.#mix.gain, gain ? 0 : 1, sounds && CROSSFADE, time);
    this.#glide(this.input(MIXTURE).gain, gain, sounds && CROSSFADE, time);
  }

  /** The largest sample and the root of the mean square, of a stem, the mixture or "master". */
  level(name) {
    let [peak, square] = [0, 0];
    for (const analyser of this.#meters.get(name)) {
      analyser.getFloatTimeDomainData(this.#samples);
      for (const sample of this.#samples) {
        peak = Math.max(peak, Math.abs(sample));
        square += sample * sample;
      }
    }
    return { peak, rms: Math.sqrt(square / (CHANNELS * METERED)) };
  }

  #gain(gain, target) {
    const node = stereoGain(this.#context, gain);
    node.connect(target);
    return node;
  }

  /** Two analysers beside `node`: one alone would measure the sum of both channels. */
  #meter(name, node) {
    const splitter = new ChannelSplitterNode(this.#context, { numberOfOutputs: CHANNELS });
    node.connect(splitter);
    const analysers = Array.from({ length: CHANNELS }, (_, channel) => {
      const analyser = new AnalyserNode(this.#context, { fftSize: METERED });
      splitter.connect(analyser, channel);
      return analyser;
    });
    this.#meters.set(name, analysers);
  }

  #glide(param, value, seconds, time = this.#context.currentTime) {
    if (this.#targets.get(param) === value) return;
    this.#targets.set(param, value);
    param.cancelScheduledValues(time);
    // After three time constants 95 % are done.
    if (seconds) param.setTargetAtTime(value, time, seconds / 3);
    else param.setValueAtTime(value, time);
  }
}

/** Opens and closes softly at given frames of the context, so that no start and no stop clicks. */
class Gate {
  #opened = 0; // frame of the context
  #closes = Infinity;

  constructor(context) {
    this.hz = context.sampleRate;
    this.node = stereoGain(context, 1);
    this.frames = Math.round(FADE * this.hz);
  }

  /** The first frame after `frame` at which it can be closed. */
  openUntil(frame) {
    return this.#opened < frame ? Math.max(frame, this.#opened + 2 * this.frames) : frame;
  }

  open(when, softly) {
    const { gain } = this.node;
    gain.cancelScheduledValues(when / this.hz);
    gain.setValueAtTime(softly ? 0 : 1, when / this.hz);
    gain.linearRampToValueAtTime(1, (when + this.frames) / this.hz);
    this.#opened = when;
    this.#closes = Infinity;
  }

  /** Be closed at `when`, or not at all at Infinity, whatever was said before. */
  close(when) {
    if (when === this.#closes) return;
    const { gain } = this.node;
    if (this.#closes < Infinity) gain.cancelScheduledValues((this.#closes - this.frames) / this.hz);
    this.#closes = Infinity;
    if (when === Infinity || when < this.#opened + 2 * this.frames) return;
    gain.setValueAtTime(1, (when - this.frames) / this.hz);
    gain.linearRampToValueAtTime(0, when / this.hz);
    this.#closes = when;
  }
}

function stereoGain(context, gain) {
  // Always stereo: a node that changes its number of channels may click.
  return new GainNode(context, { gain, channelCount: CHANNELS, channelCountMode: "explicit" });
}
