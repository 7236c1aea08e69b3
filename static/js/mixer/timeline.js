// The player's timeline: which pieces of which chunks follow each other, with loops. Pure
// arithmetic in frames of the song.
//
// A chunk's buffer begins with a guard, the last frame of the chunk before, and one source follows
// the other there. So no source reads past the end of its buffer, and interpolation (at speeds
// other than 1) is seamless across chunks.

export const GUARD = 1;
export const SHORTEST_LOOP = 0.05; // seconds
const CHUNKS_BEHIND = 4; // kept behind the playhead, for a seek a few seconds back
const LOOP_START_CHUNKS = 2; // kept at the start of the loop

/**
 * A piece is what one source of each stem plays:
 *   from, to: frames of the song; to is excluded
 *   frames: how many are played; more than to - from where a short loop is repeated
 *   chunk, offset: the buffer, and where the piece begins in it; chunk is null for a repeated loop
 *   chunks: all that have to be loaded
 */
export class Timeline {
  #loop = null;

  constructor(frames, chunkFrames, sampleRate) {
    this.frames = frames;
    this.chunkFrames = chunkFrames;
    this.sampleRate = sampleRate;
    this.reach = frames;
  }

  /** How many frames can be loaded: only whole chunks while the song is being separated. */
  get available() {
    if (this.reach >= this.frames) return this.frames;
    return this.chunkOf(this.reach) * this.chunkFrames;
  }

  /** Change the length, which is an estimate until the song is decoded. */
  setFrames(frames) {
    this.frames = frames;
    const loop = this.#loop;
    if (loop) this.setLoop(loop.from / this.sampleRate, loop.to / this.sampleRate);
  }

  /** {from, to} in frames, or null. */
  get loop() {
    return this.#loop;
  }

  /** Loop between two times in seconds, in either order, within the song. */
  setLoop(one, other) {
    const shortest = Math.min(Math.round(SHORTEST_LOOP * this.sampleRate), this.frames);
    const [from, to] = [this.frameAt(Math.min(one, other)), this.frameAt(Math.max(one, other))];
    const start = Math.min(from, this.frames - shortest);
    this.#loop = { from: start, to: Math.max(to, start + shortest) };
  }

  clearLoop() {
    this.#loop = null;
  }

  /** The frame at a time in seconds, within the song. */
  frameAt(seconds) {
    return Math.min(Math.max(Math.round(seconds * this.sampleRate) || 0, 0), this.frames);
  }

  /** The index of the chunk with this frame. */
  chunkOf(frame) {
    return Math.floor(frame / this.chunkFrames);
  }

  /** Where playback from `frame` ends or jumps back. */
  #limit(frame) {
    const loop = this.#loop;
    return loop && frame < loop.to ? loop.to : this.frames;
  }

  /** The piece that begins at `from`; null at the end of the song or of the available frames. */
  pieceAt(from) {
    const loop = this.#loop;
    if (loop && from === loop.from && loop.to - loop.from < this.chunkFrames) {
      return this.#repeatedLoop();
    }
    const limit = this.#limit(from);
    if (from >= limit) return null;
    const next = this.chunkOf(from + GUARD);
    // The last frame before the limit needs no guard: it is played from its own chunk.
    const own = this.chunkOf(from);
    const chunk = next * this.chunkFrames < limit ? next : own;
    const end = (chunk + 1) * this.chunkFrames;
    if (Math.min(end, this.frames) > this.available) return null;
    const to = limit <= end ? limit : end - GUARD;
    const offset = from - chunk * this.chunkFrames + GUARD;
    const chunks = offset < GUARD ? [own, chunk] : [chunk];
    return { from, to, frames: to - from, chunk, offset, chunks };
  }

  /** A loop shorter than a chunk, repeated: a copy is cheaper than hundreds of short sources. */
  #repeatedLoop() {
    const { from, to } = this.#loop;
    const chunks = range(this.chunkOf(from), this.chunkOf(to - 1));
    const end = Math.min((chunks.at(-1) + 1) * this.chunkFrames, this.frames);
    if (end > this.available) return null;
    const times = Math.ceil(this.chunkFrames / (to - from));
    return { from, to, frames: times * (to - from), chunk: null, offset: 0, chunks };
  }

  /** The frame from which playback continues after `piece`. */
  after(piece) {
    return this.#loop?.to === piece.to ? this.#loop.from : piece.to;
  }

  /** Whether `frame` is the end of the song. */
  isEnd(frame) {
    return frame >= this.frames;
  }

  /**
   * The chunks to hold while `frame` is played, the most urgent first.
   *
   * @param {number} capacity how many to hold at most
   * @param {number} ahead how many of them ahead of the playhead
   */
  chunksAround(frame, capacity, ahead = capacity) {
    const last = this.chunkOf(this.available - 1);
    const now = this.chunkOf(Math.min(frame, this.frames - 1)); // frames may be fractions
    const turn = this.chunkOf(this.#limit(frame) - 1);
    const found = new Set();
    const add = (chunks, most) => {
      for (const chunk of chunks) {
        if (chunk >= 0 && chunk <= last && found.size < most) found.add(chunk);
      }
    };
    const most = capacity - Math.min(CHUNKS_BEHIND, capacity >> 1);
    add(range(now, Math.min(turn, now + 1)), Math.min(ahead, most));
    let coming = range(now, turn);
    if (this.#loop) {
      const { from, to } = this.#loop;
      const loop = range(this.chunkOf(from), this.chunkOf(to - 1));
      add(loop.slice(0, LOOP_START_CHUNKS), most);
      if (frame < to) coming = [...coming, ...loop];
    }
    add(coming, Math.min(ahead + (this.#loop ? LOOP_START_CHUNKS : 0), most));
    add(range(now - CHUNKS_BEHIND, now - 1).reverse(), capacity);
    return [...found];
  }
}

/** All integers from `first` to `last`. */
function range(first, last) {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index);
}
