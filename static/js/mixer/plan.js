// What sounds when: pieces of the song that follow each other on a context's clock, the same for
// every stem, so that nothing can drift. `when` and `end` are frames of the context, whole ones at
// speed 1; every piece begins on a whole frame of the song.

const LEAD = 0.03; // seconds from planning to sounding…
const LONGEST_LEAD = 0.5; // …and on a machine that is late again and again

export class Plan {
  #context;
  #hz;
  #ended;
  #pieces = []; // as of the timeline, with `when`, `end` and `rate`
  #sources = new Set(); // {node, when, end}
  #until = -1; // where what was given up ends
  #lead = LEAD;

  /** @param {() => void} ended called when a source has ended: also where timers are slowed down */
  constructor(context, ended) {
    this.#context = context;
    this.#hz = context.sampleRate;
    this.#ended = ended;
  }

  /** The context's clock in frames. */
  get now() {
    return Math.round(this.#context.currentTime * this.#hz);
  }

  /** The first frame that can still be planned for. */
  get soonest() {
    const now = this.now;
    return now && now + Math.ceil(this.#lead * this.#hz); // nothing is late at first
  }

  /** The first frame for a start, after all that was ever planned. */
  get fresh() {
    return Math.max(this.soonest, Math.ceil(Math.max(this.#until, this.end)) + 1);
  }

  get end() {
    return this.#pieces.at(-1)?.end ?? -1;
  }

  /** Whether what is planned now can follow without a gap. */
  get goesOn() {
    return this.end > (this.now + this.soonest) / 2;
  }

  get sounds() {
    return this.now > (this.#pieces[0]?.when ?? Infinity);
  }

  /** The frame of the song at a frame of the context; undefined without a plan. */
  frameAt(now) {
    const piece = this.#pieces.findLast(({ when }) => when <= now) ?? this.#pieces[0];
    return piece && frameWithin(piece, (now - piece.when) * piece.rate);
  }

  /** The pieces that sound from one frame of the context to another. */
  between(from, to) {
    return this.#pieces.filter(({ when, end }) => end > from && when < to);
  }

  /** Start a piece: a source for each [buffer, node to play into]. False if it was not in time. */
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
        this.#ended();
      };
    }
    // Its time came while its sources were started: who knows which of them are in sync.
    if (this.#context.state === "running" && this.now >= when) {
      this.#dropFrom(when);
      this.#lead = Math.min(2 * this.#lead, LONGEST_LEAD);
      return false;
    }
    this.#pieces.push({ ...piece, when, end, rate });
    return true;
  }

  /**
   * Take back what is planned from a frame of the context on, as soon as can be.
   *
   * @param {number} soonest
   * @param {number} rate at which it will go on
   * @returns {{when: number, frame: number}} where that is, in the context and in the song; null
   *   when nothing is planned that far
   */
  cut(soonest, rate) {
    const index = this.#pieces.findIndex(({ end }) => end > soonest);
    if (index < 0) return null;
    const piece = this.#pieces[index];
    const steps = Math.max(0, Math.ceil((soonest - piece.when) * piece.rate));
    const exact = piece.when + steps / piece.rate;
    const when = rate === 1 ? Math.ceil(exact) : exact; // at speed 1 samples stay samples
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

  /** Forget what is over, but for the last piece: that is where the song stands. */
  prune() {
    const now = this.now;
    this.#pieces = this.#pieces.filter(
      ({ end }, index, { length }) => end > now || index === length - 1,
    );
  }

  /** Give the plan up; what still sounds does so to its end. */
  clear() {
    this.#until = Math.max(this.#until, this.end);
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
    node.buffer = null; // Safari on iOS keeps it for ever otherwise
  }
}

/** The frame of the song after `steps` frames of a piece. */
function frameWithin({ chunk, from, to, frames }, steps) {
  const done = Math.min(Math.max(steps, 0), frames);
  return from + (chunk === null ? done % (to - from) : done);
}
