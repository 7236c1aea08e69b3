// Chunks of stems: fetching, decoding, and a store of bounded size.

import { GUARD } from "./timeline.js";

const AT_ONCE = 8; // loads under way; a browser has six connections to a host anyway
const RETRY_SECONDS = [0.25, 0.5, 1, 2, 4]; // and then every…
const LONG_SECONDS = 8;
const TRIES = 3; // failures in a row that are worth telling
const PATIENCE = 20; // seconds until a load that does not answer counts as failed

const GONE = 410; // HTTP

/**
 * A `load` for the player that fetches chunks.
 *
 * @param {(stem: string, index: number) => string} address
 * @param {() => void} [gone] called when the server says that there will be no more
 * @returns {(stem: string, index: number, signal: AbortSignal) => Promise<{data: ArrayBuffer, exponent: number}>}
 */
export function chunkLoader(address, gone) {
  return async (stem, index, signal) => {
    const response = await fetch(address(stem, index), { signal });
    if (response.status === GONE) gone?.();
    if (!response.ok) throw new Error(`${response.status} ${response.url}`);
    const exponent = Number(response.headers.get("X-Exponent") ?? 0);
    return { data: await response.arrayBuffer(), exponent };
  };
}

/** The samples of a loaded chunk behind an empty guard, as an AudioBuffer. */
export async function decodeChunk(context, { data, exponent }) {
  const decoded = await context.decodeAudioData(data);
  const { numberOfChannels, length, sampleRate } = decoded;
  const buffer = context.createBuffer(numberOfChannels, GUARD + length, sampleRate);
  const scale = 2 ** -exponent;
  for (let channel = 0; channel < numberOfChannels; channel += 1) {
    const from = decoded.getChannelData(channel);
    const to = buffer.getChannelData(channel);
    for (let frame = 0; frame < length; frame += 1) to[frame + GUARD] = from[frame] * scale;
  }
  return buffer;
}

/** Several rounds of a short loop as one AudioBuffer, which goes on into the next round. */
export function roundsOf(context, piece, chunkFrames, bufferOf) {
  const period = piece.to - piece.from;
  const { numberOfChannels, sampleRate } = bufferOf(piece.chunks[0]);
  const buffer = context.createBuffer(numberOfChannels, piece.frames + GUARD, sampleRate);
  for (let channel = 0; channel < numberOfChannels; channel += 1) {
    const samples = buffer.getChannelData(channel);
    for (const chunk of piece.chunks) {
      const start = chunk * chunkFrames;
      const from = Math.max(piece.from, start);
      const to = Math.min(piece.to, start + chunkFrames);
      const source = bufferOf(chunk).getChannelData(channel);
      samples.set(source.subarray(from - start + GUARD, to - start + GUARD), from - piece.from);
    }
    for (let frame = period; frame < samples.length; frame += 1) {
      samples[frame] = samples[frame - period];
    }
  }
  return buffer;
}

export function bytesOf(buffer) {
  return buffer.length * buffer.numberOfChannels * Float32Array.BYTES_PER_ELEMENT;
}

/**
 * Holds the chunks that are wanted, and others as long as there is room.
 *
 * Events: `loaded`; `failed` {stem, index, error} when a chunk was not to be had several times.
 */
export class ChunkStore extends EventTarget {
  #load;
  #capacity;
  #seconds;
  #held = new Map(); // chunk index → Map of stem → buffer, the longest held first
  #pending = new Map(); // key → AbortController
  #failures = new Map(); // key → {count, timer}
  #wanted = [];
  #stems = [];

  /**
   * @param {(stem: string, index: number, signal: AbortSignal) => Promise<AudioBuffer>} load
   * @param {number} capacity how many chunks, of all stems, may be held
   * @param {number} [scale] of the waits before it is tried again
   */
  constructor(load, capacity, scale = 1) {
    super();
    this.#load = load;
    this.#capacity = capacity;
    this.#seconds = (count) => scale * (RETRY_SECONDS[count - 1] ?? LONG_SECONDS);
    globalThis.addEventListener?.("online", this.retry);
  }

  /** Hold these chunks of these stems, the most urgent first; loads that nobody needs are given up. */
  want(indexes, stems) {
    this.#wanted = indexes.slice(0, this.#capacity);
    this.#stems = stems;
    const wanted = new Set(this.#wanted.flatMap((index) => stems.map((stem) => keyOf(stem, index))));
    for (const [key, controller] of this.#pending) {
      if (wanted.has(key)) continue;
      this.#pending.delete(key);
      controller.abort();
    }
    for (const key of [...this.#failures.keys()].filter((each) => !wanted.has(each))) {
      this.#forgive(key);
    }
    this.#makeRoom();
    this.#pump();
  }

  buffer(stem, index) {
    return this.#held.get(index)?.get(stem);
  }

  /** Whether these chunks of these stems are all there. */
  holds(indexes, stems) {
    return indexes.every((index) => stems.every((stem) => this.buffer(stem, index)));
  }

  /** The indexes of the chunks that are there for all of `stems`, in order. */
  indexes(stems) {
    const all = [...this.#held.keys()].filter((index) => this.holds([index], stems));
    return all.sort((one, other) => one - other);
  }

  get bytes() {
    const buffers = [...this.#held.values()].flatMap((column) => [...column.values()]);
    return buffers.reduce((sum, buffer) => sum + bytesOf(buffer), 0);
  }

  /** Whether something wanted was not to be had several times, and still is not. */
  get failing() {
    return [...this.#failures.values()].some(({ count }) => count >= TRIES);
  }

  /** Try what failed again, without a wait. */
  retry = () => {
    for (const [key, failure] of this.#failures) {
      clearTimeout(failure.timer);
      this.#failures.set(key, { count: failure.count, timer: null });
    }
    this.#pump();
  };

  close() {
    globalThis.removeEventListener?.("online", this.retry);
    this.want([], []);
    this.#held.clear();
  }

  #makeRoom() {
    const wanted = new Set(this.#wanted);
    const spare = [...this.#held.keys()].filter((index) => !wanted.has(index));
    const room = this.#capacity - wanted.size;
    for (const index of spare.slice(0, Math.max(0, spare.length - room))) this.#held.delete(index);
  }

  #pump() {
    for (const index of this.#wanted) {
      for (const stem of this.#stems) {
        if (this.#pending.size >= AT_ONCE) return;
        const key = keyOf(stem, index);
        const waits = this.#failures.get(key)?.timer;
        if (!this.buffer(stem, index) && !this.#pending.has(key) && !waits) this.#fetch(stem, index);
      }
    }
  }

  async #fetch(stem, index) {
    const key = keyOf(stem, index);
    const controller = new AbortController();
    this.#pending.set(key, controller);
    const patience = setTimeout(() => controller.abort(), 1000 * PATIENCE);
    controller.signal.addEventListener("abort", () => clearTimeout(patience));
    let buffer = null;
    let error = null;
    try {
      buffer = await this.#load(stem, index, controller.signal);
    } catch (caught) {
      error = caught;
    }
    clearTimeout(patience);
    if (this.#pending.get(key) !== controller) return; // given up meanwhile
    this.#pending.delete(key);
    if (buffer) {
      this.#forgive(key);
      this.#keep(stem, index, buffer);
      this.dispatchEvent(new CustomEvent("loaded"));
    } else {
      this.#fail(stem, index, error);
    }
    this.#pump();
  }

  #keep(stem, index, buffer) {
    if (!this.#held.has(index)) this.#held.set(index, new Map());
    this.#held.get(index).set(stem, buffer);
    bridge(this.buffer(stem, index - 1), buffer);
    bridge(buffer, this.buffer(stem, index + 1));
  }

  #fail(stem, index, error) {
    const key = keyOf(stem, index);
    const count = (this.#failures.get(key)?.count ?? 0) + 1;
    const again = () => {
      this.#failures.set(key, { count, timer: null });
      this.#pump();
    };
    this.#failures.set(key, { count, timer: setTimeout(again, 1000 * this.#seconds(count)) });
    if (count === TRIES) {
      this.dispatchEvent(new CustomEvent("failed", { detail: { stem, index, error } }));
    }
  }

  #forgive(key) {
    clearTimeout(this.#failures.get(key)?.timer);
    this.#failures.delete(key);
  }
}

function keyOf(stem, index) {
  return `${index}/${stem}`;
}

/** Give `next` its guard: the last frame of the chunk before. */
function bridge(previous, next) {
  if (!previous || !next) return;
  for (let channel = 0; channel < next.numberOfChannels; channel += 1) {
    next.getChannelData(channel).set(previous.getChannelData(channel).subarray(-GUARD));
  }
}
