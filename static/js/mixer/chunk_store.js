// Chunks of stems: loading, decoding, and a store of bounded size.

import { GUARD } from "./timeline.js";

const MAX_LOADS = 8; // at a time; over HTTP/1.1 browsers open six connections to a host
const RETRY_SECONDS = [0.25, 0.5, 1, 2, 4]; // waits before the first retries…
const LONGEST_RETRY_SECONDS = 8; // …and before all that follow
const TRIES_BEFORE_ERROR = 3;
const TIMEOUT_SECONDS = 20; // of a load

const HTTP_GONE = 410;

/**
 * A `load` for the player that fetches chunks.
 *
 * @param {(stem: string, index: number) => string} address
 * @param {() => void} [onGone] called when the stems were deleted on the server
 * @returns {(stem: string, index: number, signal: AbortSignal) =>
 *   Promise<{data: ArrayBuffer, exponent: number}>}
 */
export function chunkLoader(address, onGone) {
  return async (stem, index, signal) => {
    const response = await fetch(address(stem, index), { signal });
    if (response.status === HTTP_GONE) onGone?.();
    if (!response.ok) throw new Error(`${response.status} ${response.url}`);
    const exponent = Number(response.headers.get("X-Exponent") ?? 0);
    return { data: await response.arrayBuffer(), exponent };
  };
}

/** Decode a loaded chunk into an AudioBuffer, after an empty guard (see timeline.js). */
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

/** Several repeats of a short loop in one AudioBuffer, with the first frame of the next one. */
export function repeatedLoop(context, piece, chunkFrames, bufferOf) {
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
 * Loads and holds the wanted chunks, and keeps others while there is room.
 *
 * Events: `loaded`; `failed` {stem, index, error} once a chunk failed TRIES_BEFORE_ERROR times.
 */
export class ChunkStore extends EventTarget {
  #load;
  #capacity;
  #retrySeconds;
  #held = new Map(); // chunk index → Map of stem → buffer, oldest first
  #pending = new Map(); // key → AbortController
  #failures = new Map(); // key → {count, timer}
  #wanted = [];
  #stems = [];

  /**
   * @param {(stem: string, index: number, signal: AbortSignal) => Promise<AudioBuffer>} load
   * @param {number} capacity how many chunks of every stem to hold at most
   * @param {number} [scale] multiplies the waits before retries
   */
  constructor(load, capacity, scale = 1) {
    super();
    this.#load = load;
    this.#capacity = capacity;
    this.#retrySeconds = (count) => scale * (RETRY_SECONDS[count - 1] ?? LONGEST_RETRY_SECONDS);
    globalThis.addEventListener?.("online", this.retry);
  }

  /** Set the chunks and stems to hold, the most urgent first. Loads of others are aborted. */
  want(indexes, stems) {
    this.#wanted = indexes.slice(0, this.#capacity);
    this.#stems = stems;
    const wanted = new Set(
      this.#wanted.flatMap((index) => stems.map((stem) => keyOf(stem, index))),
    );
    for (const [key, controller] of this.#pending) {
      if (wanted.has(key)) continue;
      this.#pending.delete(key);
      controller.abort();
    }
    for (const key of [...this.#failures.keys()].filter((each) => !wanted.has(each))) {
      this.#clearFailure(key);
    }
    this.#evict();
    this.#startLoads();
  }

  /** A chunk as an AudioBuffer, undefined where it is not loaded. */
  buffer(stem, index) {
    return this.#held.get(index)?.get(stem);
  }

  /** Whether these chunks of these stems are all loaded. */
  holds(indexes, stems) {
    return indexes.every((index) => stems.every((stem) => this.buffer(stem, index)));
  }

  /** The indexes of the chunks that are loaded for all of `stems`, in order. */
  indexes(stems) {
    const all = [...this.#held.keys()].filter((index) => this.holds([index], stems));
    return all.sort((one, other) => one - other);
  }

  /** The size of all buffers. */
  get bytes() {
    const buffers = [...this.#held.values()].flatMap((column) => [...column.values()]);
    return buffers.reduce((sum, buffer) => sum + bytesOf(buffer), 0);
  }

  /** Whether a wanted chunk failed TRIES_BEFORE_ERROR times and is still missing. */
  get failing() {
    return [...this.#failures.values()].some(({ count }) => count >= TRIES_BEFORE_ERROR);
  }

  /** Retry failed loads at once. */
  retry = () => {
    for (const [key, failure] of this.#failures) {
      clearTimeout(failure.timer);
      this.#failures.set(key, { count: failure.count, timer: null });
    }
    this.#startLoads();
  };

  close() {
    globalThis.removeEventListener?.("online", this.retry);
    this.want([], []);
    this.#held.clear();
  }

  #evict() {
    const wanted = new Set(this.#wanted);
    const spare = [...this.#held.keys()].filter((index) => !wanted.has(index));
    const room = this.#capacity - wanted.size;
    for (const index of spare.slice(0, Math.max(0, spare.length - room))) this.#held.delete(index);
  }

  #startLoads() {
    for (const index of this.#wanted) {
      for (const stem of this.#stems) {
        if (this.#pending.size >= MAX_LOADS) return;
        const key = keyOf(stem, index);
        const isWaiting = this.#failures.get(key)?.timer;
        if (this.buffer(stem, index) || this.#pending.has(key) || isWaiting) continue;
        this.#fetch(stem, index);
      }
    }
  }

  async #fetch(stem, index) {
    const key = keyOf(stem, index);
    const controller = new AbortController();
    this.#pending.set(key, controller);
    const timeout = setTimeout(() => controller.abort(), 1000 * TIMEOUT_SECONDS);
    controller.signal.addEventListener("abort", () => clearTimeout(timeout));
    let buffer = null;
    let error = null;
    try {
      buffer = await this.#load(stem, index, controller.signal);
    } catch (caught) {
      error = caught;
    }
    clearTimeout(timeout);
    if (this.#pending.get(key) !== controller) return; // no longer wanted
    this.#pending.delete(key);
    if (buffer) {
      this.#clearFailure(key);
      this.#add(stem, index, buffer);
      this.dispatchEvent(new CustomEvent("loaded"));
    } else {
      this.#fail(stem, index, error);
    }
    this.#startLoads();
  }

  #add(stem, index, buffer) {
    if (!this.#held.has(index)) this.#held.set(index, new Map());
    this.#held.get(index).set(stem, buffer);
    fillGuard(this.buffer(stem, index - 1), buffer);
    fillGuard(buffer, this.buffer(stem, index + 1));
  }

  #fail(stem, index, error) {
    const key = keyOf(stem, index);
    const count = (this.#failures.get(key)?.count ?? 0) + 1;
    const retry = () => {
      this.#failures.set(key, { count, timer: null });
      this.#startLoads();
    };
    this.#failures.set(key, { count, timer: setTimeout(retry, 1000 * this.#retrySeconds(count)) });
    if (count === TRIES_BEFORE_ERROR) {
      this.dispatchEvent(new CustomEvent("failed", { detail: { stem, index, error } }));
    }
  }

  #clearFailure(key) {
    clearTimeout(this.#failures.get(key)?.timer);
    this.#failures.delete(key);
  }
}

function keyOf(stem, index) {
  return `${index}/${stem}`;
}

/** Fill the guard of `next` with the last frame of the chunk before. */
function fillGuard(previous, next) {
  if (!previous || !next) return;
  for (let channel = 0; channel < next.numberOfChannels; channel += 1) {
    next.getChannelData(channel).set(previous.getChannelData(channel).subarray(-GUARD));
  }
}
