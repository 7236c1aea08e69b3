// The player: plays a song's stems in sync on one AudioContext. `timeline.js` says which pieces
// follow each other, `chunk_store.js` loads their samples, `source_scheduler.js` starts them on
// time and `audio_graph.js` mixes them.

import { AudioGraph, CHANNELS, MIXTURE } from "./audio_graph.js";
import { bytesOf, ChunkStore, decodeChunk, repeatedLoop } from "./chunk_store.js";
import { SourceScheduler } from "./source_scheduler.js";
import { GUARD, Timeline } from "./timeline.js";

const RATES = [0.5, 1.5];
const BUDGET = 80e6; // bytes of decoded chunks; under 100 MB with running loads and repeated loops
const LEAST_CHUNKS = 8; // held of each stem, whatever the budget
const LOAD_AHEAD = 30; // seconds loaded ahead while playing…
const PAUSED_CHUNKS = 3; // …and chunks while paused
const SCHEDULE_AHEAD = 12; // seconds: browsers throttle timers of background tabs
const START_SECONDS = 0.2; // that have to be loaded before playback starts
const TICK_MS = 100;

/**
 * Events: `change` (playing, waiting, position, loop, rate, original, the context's state),
 * `progress` (a chunk was loaded), `failed` {stem, index, error} (a chunk cannot be loaded; retries
 * continue, and `failing` tells whether it is still missing).
 */
export class Player extends EventTarget {
  #context;
  #hz;
  #timeline;
  #store;
  #graph;
  #stems;
  #ahead;
  #capacity;
  #scheduler;
  #repeated = { key: "", buffers: new Map() }; // the repeated loop's buffers, by stem
  #head = 0; // frame of the song up to which pieces are scheduled
  #rate = 1;
  #started = false; // whether anything is to be loaded yet
  #playing = false;
  #saidWaiting = false; // `waiting` at the last `change` event
  #original = { on: false, gain: 1, wanted: false, joined: false };
  #timer = null;

  /**
   * @param {object} options
   * @param {BaseAudioContext} options.context at the song's sample rate
   * @param {string[]} options.stems names; the original is loaded as `mixture`
   * @param {number} options.frames the song's length
   * @param {number} [options.reach] how many frames of it are finished
   * @param {Function} options.load as from chunkLoader
   * @param {number} [options.budget] bytes of decoded chunks to hold at most
   * @param {number} [options.ahead] seconds to schedule ahead
   */
  constructor(options) {
    super();
    const { context, stems, frames, reach = frames, chunkFrames = 65536, load } = options;
    this.#context = context;
    this.#hz = context.sampleRate;
    this.#stems = [...stems];
    this.#ahead = options.ahead ?? SCHEDULE_AHEAD;
    this.#timeline = new Timeline(frames, chunkFrames, this.#hz);
    this.#timeline.reach = reach;
    this.#capacity = capacityOf(options.budget ?? BUDGET, stems.length + 1, chunkFrames);
    const decoded = async (...chunk) => decodeChunk(context, await load(...chunk));
    this.#store = new ChunkStore(decoded, this.#capacity);
    this.#store.addEventListener("loaded", () => {
      this.#update();
      this.#emit("progress");
    });
    this.#store.addEventListener("failed", ({ detail }) => this.#emit("failed", detail));
    this.#graph = new AudioGraph(context, stems);
    this.#scheduler = new SourceScheduler(context, this.#tick);
    context.addEventListener("statechange", this.#stateChanged);
  }

  get output() {
    return this.#graph.output;
  }

  /** Set how many frames are finished. */
  setReach(frames) {
    if (frames === this.#timeline.reach) return;
    this.#timeline.reach = frames;
    this.#store.retry();
    this.#update();
  }

  /** Change the song's length. */
  setFrames(frames) {
    this.#timeline.setFrames(frames);
    this.#update();
  }

  get duration() {
    return this.#timeline.frames / this.#hz;
  }

  /** Whether it plays, or will as soon as it can. */
  get playing() {
    return this.#playing;
  }

  /** Whether it is playing but silent: what follows is not finished, or not loaded. */
  get waiting() {
    return this.#playing && !this.#timeline.isEnd(this.#head) && this.#isPlayedOut;
  }

  /** Whether the browser suspended the sound (phone call, no user gesture yet): call play(). */
  get interrupted() {
    return this.#playing && this.#context.state !== "running";
  }

  /** Seconds of the song. */
  get position() {
    return this.#frame / this.#hz;
  }

  /** Load what playback would start with. */
  prepare() {
    this.#started = true;
    this.#update();
  }

  /** Play. Needs a user gesture. After the end it starts at the loop's start, or the song's. */
  play() {
    if (this.#context.state !== "running") this.#resume();
    if (this.#playing) return;
    this.#playing = true;
    if (this.#timeline.isEnd(this.#head)) this.#head = this.#timeline.loop?.from ?? 0;
    this.#timer = setInterval(this.#tick, TICK_MS);
    this.prepare();
    this.#emitChange();
  }

  pause() {
    if (!this.#playing) return;
    this.#fadeOut();
    this.#stop();
  }

  /** Jump to a time in seconds, loaded or not. */
  seek(seconds) {
    this.#fadeOut();
    this.#head = this.#timeline.frameAt(seconds);
    this.prepare();
    this.#emitChange();
  }

  /** {from, to} in seconds, or null. */
  get loop() {
    const loop = this.#timeline.loop;
    return loop && { from: loop.from / this.#hz, to: loop.to / this.#hz };
  }

  /** Loop between two times. A playhead behind the loop jumps to its start. */
  setLoop(from, to) {
    this.#timeline.setLoop(from, to);
    const loop = this.#timeline.loop;
    if ((this.#scheduler.frameAt(this.#scheduler.earliest) ?? this.#head) >= loop.to) {
      this.seek(loop.from / this.#hz);
    } else this.#reschedule();
  }

  clearLoop() {
    this.#timeline.clearLoop();
    this.#reschedule();
  }

  get rate() {
    return this.#rate;
  }

  /** Change the speed, and the pitch with it. */
  setRate(rate) {
    // An AudioParam is a float32: the scheduler has to compute with the sources' exact rate.
    const exact = Math.fround(Math.min(Math.max(rate, RATES[0]), RATES[1]));
    if (exact === this.#rate) return;
    this.#rate = exact;
    this.#reschedule();
  }

  /** Set the mix: a state of mix.js. */
  setMix(state) {
    this.#graph.setMix(state, this.#scheduler.hasStarted);
  }

  /** Whether the original is to be heard instead of the mix. */
  get original() {
    return this.#original.on;
  }

  /** Whether it is heard: the first time it has to be loaded. */
  get originalHeard() {
    return this.#original.on && this.#original.joined;
  }

  /** Switch to the original at `gain`, or back to the mix. */
  setOriginal(on, gain = 1) {
    Object.assign(this.#original, { on, gain, wanted: this.#original.wanted || on });
    this.#update();
    this.#crossfade();
    this.#emitChange();
  }

  /** {peak, rms} of the latest samples of a stem, the mixture or "master". */
  level(name) {
    return this.#graph.level(name);
  }

  /** Whether a chunk that is needed cannot be loaded. */
  get failing() {
    return this.#store.failing;
  }

  /** The loaded ranges: [[from, to], …] in seconds, in order. */
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
    const repeated = [...this.#repeated.buffers.values()];
    return repeated.reduce((sum, buffer) => sum + bytesOf(buffer), this.#store.bytes);
  }

  close() {
    this.#context.removeEventListener("statechange", this.#stateChanged);
    this.#playing = this.#started = false;
    clearInterval(this.#timer);
    this.#scheduler.close();
    this.#store.close();
    this.#repeated.buffers.clear();
    this.output.disconnect();
  }

  get #frame() {
    return this.#scheduler.frameAt(this.#scheduler.now) ?? this.#head;
  }

  /** Whether all that is scheduled was played. */
  get #isPlayedOut() {
    return this.#scheduler.now >= this.#scheduler.end;
  }

  /** The stems that are scheduled: with the original, once that is loaded. */
  get #lanes() {
    return this.#original.joined ? [...this.#stems, MIXTURE] : this.#stems;
  }

  /** Request the chunks that are needed, and schedule the pieces that are loaded. */
  #update() {
    this.#requestChunks();
    this.#joinOriginal();
    if (!this.#playing) return;
    this.#scheduler.prune();
    while (this.#scheduler.end < this.#scheduler.now + this.#ahead * this.#hz) {
      const piece = this.#timeline.pieceAt(this.#head);
      if (!piece || !this.#store.holds(piece.chunks, this.#lanes)) break;
      const { canContinue } = this.#scheduler;
      if (!canContinue && !this.#canStart()) break;
      const when = canContinue ? this.#scheduler.end : this.#openGate();
      const voices = this.#lanes.map((lane) => [
        this.#buffer(lane, piece),
        this.#graph.input(lane),
      ]);
      if (this.#scheduler.start(piece, when, this.#rate, voices)) {
        this.#head = this.#timeline.after(piece);
      }
    }
    // Fade out where playback will have to wait, unless more is scheduled until then.
    const fadesOut = !this.#timeline.isEnd(this.#head);
    if (!this.#isPlayedOut) this.#graph.gate.close(fadesOut ? this.#scheduler.end : Infinity);
    if (this.waiting !== this.#saidWaiting) this.#emitChange();
  }

  #requestChunks() {
    if (!this.#started) return;
    const seconds = Math.max(LOAD_AHEAD, this.#ahead);
    const chunks = Math.ceil((seconds * this.#hz) / this.#timeline.chunkFrames);
    const ahead = this.#playing ? chunks : PAUSED_CHUNKS;
    const indexes = this.#timeline.chunksAround(this.#frame, this.#capacity, ahead);
    this.#store.want(indexes, this.#original.wanted ? [...this.#stems, MIXTURE] : this.#stems);
  }

  /** Schedule the original too, once it is loaded far enough not to interrupt. */
  #joinOriginal() {
    if (this.#original.joined || !this.#original.wanted) return;
    const from = this.#scheduler.earliest;
    const next = this.#scheduler.between(from, from + START_SECONDS * this.#hz);
    if (!next.every(({ chunks }) => this.#store.holds(chunks, [MIXTURE]))) return;
    this.#original.joined = true;
    const cut = this.#cut();
    this.#crossfade(cut ? cut.when / this.#hz : undefined);
    this.#emitChange();
  }

  #crossfade(time) {
    this.#graph.crossfade(
      this.originalHeard ? this.#original.gain : 0,
      this.#scheduler.hasStarted,
      time,
    );
  }

  /** Whether START_SECONDS are loaded, or all that is available. */
  #canStart() {
    let [frame, seconds] = [this.#head, 0];
    while (seconds < START_SECONDS) {
      const piece = this.#timeline.pieceAt(frame);
      if (!piece) return true;
      if (!this.#store.holds(piece.chunks, this.#lanes)) return false;
      seconds += piece.frames / this.#rate / this.#hz;
      frame = this.#timeline.after(piece);
    }
    return true;
  }

  /** Open the gate for a start, with a fade-in except at the song's start. Returns when. */
  #openGate() {
    const when = this.#scheduler.earliestStart;
    this.#graph.gate.open(when, this.#head > 0);
    return when;
  }

  #buffer(lane, piece) {
    const bufferOf = (index) => this.#store.buffer(lane, index);
    if (piece.chunk !== null) return bufferOf(piece.chunk);
    const key = `${piece.from}-${piece.to}`;
    if (this.#repeated.key !== key) this.#repeated = { key, buffers: new Map() };
    const { buffers } = this.#repeated;
    if (!buffers.has(lane)) {
      buffers.set(lane, repeatedLoop(this.#context, piece, this.#timeline.chunkFrames, bufferOf));
    }
    return buffers.get(lane);
  }

  /** Cancel what is scheduled, and continue from there. */
  #cut(earliest = this.#scheduler.earliest) {
    const cut = this.#scheduler.cut(earliest, this.#rate);
    if (cut) this.#head = cut.frame;
    return cut;
  }

  /** Continue with another rate or loop, without a gap. */
  #reschedule() {
    this.#cut();
    this.#update();
    this.#emitChange();
  }

  /** Fade out and cancel what is scheduled. */
  #fadeOut() {
    const { gate } = this.#graph;
    const cut = this.#cut(gate.earliestClose(this.#scheduler.earliest));
    if (cut) gate.close(cut.when);
    this.#scheduler.clear();
  }

  #stop() {
    this.#playing = false;
    this.#scheduler.clear();
    clearInterval(this.#timer);
    this.#requestChunks();
    this.#emitChange();
  }

  #tick = () => {
    if (!this.#playing) return;
    this.#update();
    if (this.#timeline.isEnd(this.#head) && this.#isPlayedOut) this.#stop();
  };

  #stateChanged = () => {
    // In state "interrupted" (iOS, a phone call) resume() would fail: wait for "suspended".
    if (this.#playing && this.#context.state === "suspended") this.#resume();
    this.#update();
    this.#emitChange();
  };

  #resume() {
    // An OfflineAudioContext has no close(); the code that suspended it resumes it.
    if ("close" in this.#context) this.#context.resume().catch(() => {});
  }

  #emitChange() {
    this.#saidWaiting = this.waiting;
    this.#emit("change");
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** How many chunks of each of `lanes` stems fit into a budget of bytes. */
export function capacityOf(budget, lanes, chunkFrames) {
  const chunk = (GUARD + chunkFrames) * CHANNELS * Float32Array.BYTES_PER_ELEMENT;
  return Math.max(LEAST_CHUNKS, Math.floor(budget / (chunk * lanes)));
}
