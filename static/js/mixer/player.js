// Plays the stems of a song in sync on one AudioContext: `timeline.js` says which pieces of it follow
// each other, `chunks.js` has their samples, `plan.js` starts them on time, `desk.js` mixes them.

import { bytesOf, ChunkStore, decodeChunk, roundsOf } from "./chunks.js";
import { CHANNELS, Desk, MIXTURE } from "./desk.js";
import { Plan } from "./plan.js";
import { GUARD, Timeline } from "./timeline.js";

const RATES = [0.5, 1.5];
const BUDGET = 80e6; // bytes of decoded chunks; with loads under way and short loops below 100 MB
const LEAST_CHUNKS = 8; // to be held, however many stems there are
const STORE_AHEAD = 30; // seconds loaded ahead while it plays…
const IDLE_CHUNKS = 3; // …and chunks while it does not
const AHEAD = 12; // seconds planned ahead: timers of a tab in the background are slow
const ENOUGH = 0.2; // seconds that have to be there for a start
const TICK = 100; // milliseconds

/**
 * Events: `change` (playing, waiting, seeked, loop, rate, original, the context's state…),
 * `progress` (more was loaded), `failed` {stem, index, error} (a chunk cannot be had; it is tried
 * on and on, and `failing` says whether that lasts).
 */
export class Player extends EventTarget {
  #context;
  #hz;
  #timeline;
  #store;
  #desk;
  #stems;
  #ahead;
  #capacity;
  #plan;
  #rounds = { key: "", buffers: new Map() }; // the short loop's buffers, by stem
  #head = 0; // frame of the song from which the plan goes on
  #rate = 1;
  #awake = false; // whether anything was wanted yet
  #playing = false;
  #waited = false; // what was last said of `waiting`
  #original = { on: false, gain: 1, wanted: false, joined: false };
  #timer = null;

  /**
   * @param {object} options
   * @param {BaseAudioContext} options.context at the song's sample rate; connect `output` to something
   * @param {string[]} options.stems names; the original is loaded as `mixture`
   * @param {number} options.frames the song's length
   * @param {number} [options.reach] how many frames of it are finished
   * @param {(stem: string, index: number, signal: AbortSignal) => Promise<{data: ArrayBuffer, exponent: number}>} options.load
   * @param {number} [options.budget] bytes of decoded chunks to hold at most
   * @param {number} [options.ahead] seconds to plan ahead
   */
  constructor(options) {
    super();
    const { context, stems, frames, reach = frames, chunkFrames = 65536, load } = options;
    this.#context = context;
    this.#hz = context.sampleRate;
    this.#stems = [...stems];
    this.#ahead = options.ahead ?? AHEAD;
    this.#timeline = new Timeline(frames, chunkFrames, this.#hz);
    this.#timeline.reach = reach;
    this.#capacity = capacityOf(options.budget ?? BUDGET, stems.length + 1, chunkFrames);
    const decoded = async (...chunk) => decodeChunk(context, await load(...chunk));
    this.#store = new ChunkStore(decoded, this.#capacity);
    this.#store.addEventListener("loaded", () => {
      this.#fill();
      this.#emit("progress");
    });
    this.#store.addEventListener("failed", ({ detail }) => this.#emit("failed", detail));
    this.#desk = new Desk(context, stems);
    this.#plan = new Plan(context, this.#tick);
    context.addEventListener("statechange", this.#stateChanged);
  }

  /** The node to connect. */
  get output() {
    return this.#desk.output;
  }

  /** So many frames of every stem are finished. */
  setReach(frames) {
    if (frames === this.#timeline.reach) return;
    this.#timeline.reach = frames;
    this.#store.retry();
    this.#fill();
  }

  /** The song is so long, after all. */
  setFrames(frames) {
    this.#timeline.setFrames(frames);
    this.#fill();
  }

  get duration() {
    return this.#timeline.frames / this.#hz;
  }

  /** Whether it plays or wants to. */
  get playing() {
    return this.#playing;
  }

  /** Whether it wants to play and has nothing to: what comes is not finished or not loaded. */
  get waiting() {
    return this.#playing && !this.#timeline.isEnd(this.#head) && this.#over;
  }

  /** Whether the system holds the sound (a call; a page that was not touched yet): play() again. */
  get interrupted() {
    return this.#playing && this.#context.state !== "running";
  }

  /** Seconds of the song. */
  get position() {
    return this.#frame / this.#hz;
  }

  /** Load what playing would begin with. */
  prepare() {
    this.#awake = true;
    this.#fill();
  }

  /** Play, in a user's gesture; where the song has ended from the loop's start, or the song's. */
  play() {
    if (this.#context.state !== "running") this.#resume();
    if (this.#playing) return;
    this.#playing = true;
    if (this.#timeline.isEnd(this.#head)) this.#head = this.#timeline.loop?.from ?? 0;
    this.#timer = setInterval(this.#tick, TICK);
    this.prepare();
    this.#changed();
  }

  pause() {
    if (!this.#playing) return;
    this.#breakOff();
    this.#halt();
  }

  /** Go to a time in seconds, loaded or not. */
  seek(seconds) {
    this.#breakOff();
    this.#head = this.#timeline.frameAt(seconds);
    this.prepare();
    this.#changed();
  }

  /** {from, to} in seconds, or null. */
  get loop() {
    const loop = this.#timeline.loop;
    return loop && { from: loop.from / this.#hz, to: loop.to / this.#hz };
  }

  /** Loop between two times: who is behind goes to its start, who is before plays into it. */
  setLoop(from, to) {
    this.#timeline.setLoop(from, to);
    const loop = this.#timeline.loop;
    if ((this.#plan.frameAt(this.#plan.soonest) ?? this.#head) >= loop.to) this.seek(loop.from / this.#hz);
    else this.#planAnew();
  }

  clearLoop() {
    this.#timeline.clearLoop();
    this.#planAnew();
  }

  get rate() {
    return this.#rate;
  }

  /** Speed, and pitch with it. */
  setRate(rate) {
    // An AudioParam is a float32: the plan has to reckon with what the sources really do.
    const within = Math.fround(Math.min(Math.max(rate, RATES[0]), RATES[1]));
    if (within === this.#rate) return;
    this.#rate = within;
    this.#planAnew();
  }

  /** Set all faders, pans and switches: a state of mix.js. At once where nothing sounds. */
  setMix(state) {
    this.#desk.setMix(state, this.#plan.sounds);
  }

  /** Whether the original is wanted instead of the mix. */
  get original() {
    return this.#original.on;
  }

  /** Whether it is heard: the first time it has to be loaded. */
  get originalHeard() {
    return this.#original.on && this.#original.joined;
  }

  setOriginal(on, gain = 1) {
    Object.assign(this.#original, { on, gain, wanted: this.#original.wanted || on });
    this.#fill();
    this.#crossfade();
    this.#changed();
  }

  /** {peak, rms} of what was just heard of a stem, the mixture or "master". */
  level(name) {
    return this.#desk.level(name);
  }

  /** Whether something that is needed cannot be had. */
  get failing() {
    return this.#store.failing;
  }

  /** [[from, to], …] in seconds of what is loaded, in order. */
  get buffered() {
    const { chunkFrames, frames } = this.#timeline;
    const ranges = [];
    for (const index of this.#store.indexes(this.#lanes)) {
      const seconds = (chunk) => Math.min(chunk * chunkFrames, frames) / this.#hz;
      const [from, to] = [seconds(index), seconds(index + 1)];
      if (ranges.at(-1)?.[1] === from) ranges.at(-1)[1] = to;
      else ranges.push([from, to]);
    }
    return ranges;
  }

  get bufferedBytes() {
    const rounds = [...this.#rounds.buffers.values()];
    return rounds.reduce((sum, buffer) => sum + bytesOf(buffer), this.#store.bytes);
  }

  close() {
    this.#context.removeEventListener("statechange", this.#stateChanged);
    this.#playing = this.#awake = false;
    clearInterval(this.#timer);
    this.#plan.close();
    this.#store.close();
    this.#rounds.buffers.clear();
    this.output.disconnect();
  }

  /** The frame of the song that is played. */
  get #frame() {
    return this.#plan.frameAt(this.#plan.now) ?? this.#head;
  }

  /** Whether all that is planned was played. */
  get #over() {
    return this.#plan.now >= this.#plan.end;
  }

  /** The stems that have to be there for a piece to be planned. */
  get #lanes() {
    return this.#original.joined ? [...this.#stems, MIXTURE] : this.#stems;
  }

  /** Load and plan whatever can be by now. */
  #fill() {
    this.#want();
    this.#join();
    if (!this.#playing) return;
    this.#plan.prune();
    while (this.#plan.end < this.#plan.now + this.#ahead * this.#hz) {
      const piece = this.#timeline.pieceAt(this.#head);
      if (!piece || !this.#store.holds(piece.chunks, this.#lanes)) break;
      const { goesOn } = this.#plan;
      if (!goesOn && !this.#enough()) break;
      const when = goesOn ? this.#plan.end : this.#open();
      const voices = this.#lanes.map((lane) => [this.#buffer(lane, piece), this.#desk.input(lane)]);
      if (this.#plan.start(piece, when, this.#rate, voices)) this.#head = this.#timeline.after(piece);
    }
    // Where it will have to wait, unless more comes till then, it ends softly.
    const softly = !this.#timeline.isEnd(this.#head);
    if (!this.#over) this.#desk.gate.close(softly ? this.#plan.end : Infinity);
    if (this.waiting !== this.#waited) this.#changed();
  }

  /** Say what to load. */
  #want() {
    if (!this.#awake) return;
    const seconds = Math.max(STORE_AHEAD, this.#ahead);
    const chunks = Math.ceil((seconds * this.#hz) / this.#timeline.chunkFrames);
    const ahead = this.#playing ? chunks : IDLE_CHUNKS;
    const indexes = this.#timeline.chunksAround(this.#frame, this.#capacity, ahead);
    this.#store.want(indexes, this.#original.wanted ? [...this.#stems, MIXTURE] : this.#stems);
  }

  /** Take the original in as one more stem, as soon as that does not stop the others. */
  #join() {
    if (this.#original.joined || !this.#original.wanted) return;
    const from = this.#plan.soonest;
    const coming = this.#plan.between(from, from + ENOUGH * this.#hz);
    if (!coming.every(({ chunks }) => this.#store.holds(chunks, [MIXTURE]))) return;
    this.#original.joined = true;
    const cut = this.#cut();
    this.#crossfade(cut ? cut.when / this.#hz : undefined);
    this.#changed();
  }

  #crossfade(time) {
    this.#desk.crossfade(this.originalHeard ? this.#original.gain : 0, this.#plan.sounds, time);
  }

  /** Whether there is enough from the head on for a start, or all there is to come. */
  #enough() {
    let [frame, seconds] = [this.#head, 0];
    while (seconds < ENOUGH) {
      const piece = this.#timeline.pieceAt(frame);
      if (!piece) return true;
      if (!this.#store.holds(piece.chunks, this.#lanes)) return false;
      seconds += piece.frames / this.#rate / this.#hz;
      frame = this.#timeline.after(piece);
    }
    return true;
  }

  /** Open the gate for a start, softly but at the song's beginning; says when. */
  #open() {
    const when = this.#plan.fresh;
    this.#desk.gate.open(when, this.#head > 0);
    return when;
  }

  #buffer(lane, piece) {
    const bufferOf = (index) => this.#store.buffer(lane, index);
    if (piece.chunk !== null) return bufferOf(piece.chunk);
    const key = `${piece.from}-${piece.to}`;
    if (this.#rounds.key !== key) this.#rounds = { key, buffers: new Map() };
    const { buffers } = this.#rounds;
    if (!buffers.has(lane)) {
      buffers.set(lane, roundsOf(this.#context, piece, this.#timeline.chunkFrames, bufferOf));
    }
    return buffers.get(lane);
  }

  /** Take back what is planned; it goes on from where that is. */
  #cut(soonest = this.#plan.soonest) {
    const cut = this.#plan.cut(soonest, this.#rate);
    if (cut) this.#head = cut.frame;
    return cut;
  }

  /** From now on with another rate or loop, without a gap. */
  #planAnew() {
    this.#cut();
    this.#fill();
    this.#changed();
  }

  /** Stop what sounds, softly. */
  #breakOff() {
    const { gate } = this.#desk;
    const cut = this.#cut(gate.openUntil(this.#plan.soonest));
    if (cut) gate.close(cut.when);
    this.#plan.clear();
  }

  #halt() {
    this.#playing = false;
    this.#plan.clear();
    clearInterval(this.#timer);
    this.#want();
    this.#changed();
  }

  #tick = () => {
    if (!this.#playing) return;
    this.#fill();
    if (this.#timeline.isEnd(this.#head) && this.#over) this.#halt();
  };

  #stateChanged = () => {
    // While the system has "interrupted" the sound, resume() would only do harm.
    if (this.#playing && this.#context.state === "suspended") this.#resume();
    this.#fill();
    this.#changed();
  };

  #resume() {
    // An OfflineAudioContext has no close(), and whoever suspended it resumes it.
    if ("close" in this.#context) this.#context.resume().catch(() => {});
  }

  #changed() {
    this.#waited = this.waiting;
    this.#emit("change");
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** How many chunks of `lanes` stems fit into a budget of bytes. */
export function capacityOf(budget, lanes, chunkFrames) {
  const chunk = (GUARD + chunkFrames) * CHANNELS * Float32Array.BYTES_PER_ELEMENT;
  return Math.max(LEAST_CHUNKS, Math.floor(budget / (chunk * lanes)));
}
