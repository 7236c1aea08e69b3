// The mixer's audio graph: gains, pans, crossfade, master fader, gate and meters. Native nodes:
// worklets need https, and the mixer also works on plain http.
//
//   sources → gain → pan ┬→ mix ──┐
//                        └ meter  ├→ master → gate ┬→ output
//   original → gain ┬─────────────┘                └ meter
//                   └ meter

import { gainOf } from "./fader.js";
import { stemGains } from "./mix.js";

export const CHANNELS = 2;
export const MIXTURE = "mixture";

const METER_FRAMES = 2048; // 46 ms
// In seconds
const FADER_TIME = 0.015; // for faders and switches
const CROSSFADE_TIME = 0.02; // between the mix and the original
const GATE_TIME = 0.006; // where playback starts, stops or jumps

export class AudioGraph {
  #context;
  #mix;
  #master;
  #strips = new Map(); // name → {input, pan}; the original has no pan
  #meters = new Map();
  #targets = new Map(); // AudioParam → the value that it has or moves to
  #samples = new Float32Array(METER_FRAMES);

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

  /** The target of a stem's sources. */
  input(name) {
    return this.#strips.get(name).input;
  }

  /** Set all faders, pans and switches; smoothly while playing. */
  setMix(state, playing) {
    for (const [name, gain] of Object.entries(stemGains(state))) {
      const { input, pan } = this.#strips.get(name);
      this.#moveTo(input.gain, gain, playing && FADER_TIME);
      this.#moveTo(pan.pan, state.stems[name].pan / 100, playing && FADER_TIME);
    }
    this.#moveTo(this.#master.gain, gainOf(state.master), playing && FADER_TIME);
  }

  /** Crossfade from the mix to the original at `gain`, or to the mix where that is 0. */
  crossfade(gain, playing, time = this.#context.currentTime) {
    this.#moveTo(this.#mix.gain, gain ? 0 : 1, playing && CROSSFADE_TIME, time);
    this.#moveTo(this.input(MIXTURE).gain, gain, playing && CROSSFADE_TIME, time);
  }

  /** Peak and RMS level of the last METER_FRAMES of a stem, the mixture or "master". */
  level(name) {
    let [peak, square] = [0, 0];
    for (const analyser of this.#meters.get(name)) {
      analyser.getFloatTimeDomainData(this.#samples);
      for (const sample of this.#samples) {
        peak = Math.max(peak, Math.abs(sample));
        square += sample * sample;
      }
    }
    return { peak, rms: Math.sqrt(square / (CHANNELS * METER_FRAMES)) };
  }

  #gain(gain, target) {
    const node = stereoGain(this.#context, gain);
    node.connect(target);
    return node;
  }

  /** Two analysers after `node`: a single one would measure the mean of both channels. */
  #meter(name, node) {
    const splitter = new ChannelSplitterNode(this.#context, { numberOfOutputs: CHANNELS });
    node.connect(splitter);
    const analysers = Array.from({ length: CHANNELS }, (_, channel) => {
      const analyser = new AnalyserNode(this.#context, { fftSize: METER_FRAMES });
      splitter.connect(analyser, channel);
      return analyser;
    });
    this.#meters.set(name, analysers);
  }

  /** Move an AudioParam to a value within some seconds, or at once. */
  #moveTo(param, value, seconds, time = this.#context.currentTime) {
    if (this.#targets.get(param) === value) return;
    this.#targets.set(param, value);
    param.cancelScheduledValues(time);
    // 95 % of the way takes three time constants.
    if (seconds) param.setTargetAtTime(value, time, seconds / 3);
    else param.setValueAtTime(value, time);
  }
}

/** A gate that fades in and out at given frames of the context, so that no start or stop clicks. */
class Gate {
  #openedAt = 0; // frames of the context
  #closesAt = Infinity;

  constructor(context) {
    this.hz = context.sampleRate;
    this.node = stereoGain(context, 1);
    this.frames = Math.round(GATE_TIME * this.hz);
  }

  /** The first frame from `frame` on at which the gate can close: its fade-in comes first. */
  earliestClose(frame) {
    return this.#openedAt < frame ? Math.max(frame, this.#openedAt + 2 * this.frames) : frame;
  }

  /** Open at `when`, with a fade-in or at once. */
  open(when, fadeIn) {
    const { gain } = this.node;
    gain.cancelScheduledValues(when / this.hz);
    gain.setValueAtTime(fadeIn ? 0 : 1, when / this.hz);
    gain.linearRampToValueAtTime(1, (when + this.frames) / this.hz);
    this.#openedAt = when;
    this.#closesAt = Infinity;
  }

  /** Be closed from `when` on; Infinity cancels that. Replaces an earlier call. */
  close(when) {
    if (when === this.#closesAt) return;
    const { gain } = this.node;
    if (this.#closesAt < Infinity) {
      gain.cancelScheduledValues((this.#closesAt - this.frames) / this.hz);
    }
    this.#closesAt = Infinity;
    if (when === Infinity || when < this.#openedAt + 2 * this.frames) return;
    gain.setValueAtTime(1, (when - this.frames) / this.hz);
    gain.linearRampToValueAtTime(0, when / this.hz);
    this.#closesAt = when;
  }
}

function stereoGain(context, gain) {
  // Always stereo: a node that changes its number of channels may click.
  return new GainNode(context, { gain, channelCount: CHANNELS, channelCountMode: "explicit" });
}
