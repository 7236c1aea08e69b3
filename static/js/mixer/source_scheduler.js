// Schedules audio sources: pieces of the song that follow each other on the context's clock, the
// same for every stem, so that no stem can drift. `when` and `end` are frames of the context, whole
// ones at speed 1; every piece begins on a whole frame of the song.

const LEAD = 0.03; // seconds between scheduling a source and its start…
const LONGEST_LEAD = 0.5; // …doubled up to this each time that a source was scheduled too late

export class SourceScheduler {
  #context;
  #hz;
  #onEnded;
  #pieces = []; // the timeline's, with `when`, `end` and `rate`
  #sources = new Set(); // {node, when, end}
  #clearedEnd = -1; // where the cleared pieces end: their sources may still play
  #lead = LEAD;

  /** @param {() => void} onEnded called at the end of each source: timers may be throttled */
  constructor(context, onEnded) {
    this.#context = context;
    this.#hz = context.sampleRate;
    this.#onEnded = onEnded;
  }

  /** The context's clock in frames. */
  get now() {
    return Math.round(this.#context.currentTime * this.#hz);
  }

  /** The earliest frame that a source can be scheduled for. */
  get earliest() {
    const now = this.now;
    return now && now + Math.ceil(this.#lead * this.#hz); // at 0 the clock does not run yet
  }

  /** The earliest frame for a start after a gap: all that was scheduled before has ended. */
  get earliestStart() {
    return Math.max(this.earliest, Math.ceil(Math.max(this.#clearedEnd, this.end)) + 1);
  }

  /** The frame at which the last piece ends. */
  get end() {
    return this.#pieces.at(-1)?.end ?? -1;
  }

  /** Whether another piece can follow without a gap. */
  get canContinue() {
    return this.end > (this.now + this.earliest) / 2;
  }

  /** Whether the first piece has started. */
  get hasStarted() {
    return this.now > (this.#pieces[0]?.when ?? Infinity);
  }

  /** The frame of the song at a frame of the context; undefined where nothing is scheduled. */
  frameAt(now) {
    const piece = this.#pieces.findLast(({ when }) => when <= now) ?? this.#pieces[0];
    return piece && frameWithin(piece, (now - piece.when) * piece.rate);
  }

  /** The pieces that play between two frames of the context. */
  between(from, to) {
    return this.#pieces.filter(({ when, end }) => end > from && when < to);
  }

  /** Start a piece: one source for each [buffer, target node]. False if it was too late. */
  start(piece, when, rate, voices) {
    const end = when + piece.frames / rate;
    for (const [buffer, input] of voices) {
      const node = new AudioBufferSourceNode(this.#context, { buffer, playbackRate: rate });
      node.connect(input);
      node.start(when / this.#hz, piece.offset / this.#hz);
      node.stop(end / this.#hz);
      const source = { node, when, end };
      this.#sources.add(source);
      node.onended = () => {
        this.#drop(source);
        this.#onEnded();
      };
    }
    // `when` passed while the sources were started: they may not be in sync.
    if (this.#context.state === "running" && this.now >= when) {
      this.#dropFrom(when);
      this.#lead = Math.min(2 * this.#lead, LONGEST_LEAD);
      return false;
    }
    this.#pieces.push({ ...piece, when, end, rate });
    return true;
  }

  /**
   * Cancel what is scheduled from a frame of the context on, or from shortly after it.
   *
   * @param {number} earliest
   * @param {number} rate of what will be scheduled next
   * @returns {{when: number, frame: number}} the cut, in frames of the context and of the song;
   *   null where nothing is scheduled that far
   */
  cut(earliest, rate) {
    const index = this.#pieces.findIndex(({ end }) => end > earliest);
    if (index < 0) return null;
    const piece = this.#pieces[index];
    const steps = Math.max(0, Math.ceil((earliest - piece.when) * piece.rate));
    const exact = piece.when + steps / piece.rate;
    const when = rate === 1 ? Math.ceil(exact) : exact; // no interpolation at speed 1
    const frame = frameWithin(piece, steps);
    this.#pieces.splice(steps ? index + 1 : index);
    if (steps) Object.assign(piece, { frames: steps, end: when });
    this.#dropFrom(when);
    for (const source of this.#sources) {
      if (source.end <= when) continue;
      source.end = when;
      source.node.stop(when / this.#hz);
    }
    return { when, frame };
  }

  /** Drop the pieces that have ended, except for the last one: it tells the position. */
  prune() {
    const now = this.now;
    this.#pieces = this.#pieces.filter(
      ({ end }, index, { length }) => end > now || index === length - 1,
    );
  }

  /** Drop all pieces; sources that have started play to their end. */
  clear() {
    this.#clearedEnd = Math.max(this.#clearedEnd, this.end);
    this.#pieces = [];
  }

  close() {
    this.#dropFrom(-Infinity);
    this.clear();
  }

  #dropFrom(when) {
    for (const source of [...this.#sources]) if (source.when >= when) this.#drop(source);
  }

  #drop(source) {
    const { node } = source;
    this.#sources.delete(source);
    node.onended = null;
    node.stop();
    node.disconnect();
    node.buffer = null; // else Safari on iOS never frees it
  }
}

/** The frame of the song after `steps` frames of a piece. */
function frameWithin({ chunk, from, to, frames }, steps) {
  const done = Math.min(Math.max(steps, 0), frames);
  return from + (chunk === null ? done % (to - from) : done);
}
