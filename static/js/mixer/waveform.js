// The lanes of the mixer: a time ruler, a waveform a stem, the playhead and the part that is looped.
// Click or drag on a waveform to go there; drag on the ruler to mark a part, click to go there.

const PEAK_FULL = 255;
const BAR = 2; // CSS pixels a bar of a waveform takes, with its gap
const LABEL_ROOM = 64; // CSS pixels a time on the ruler needs
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600]; // seconds between times on the ruler
export const SHORTEST_PART = 0.1; // seconds; less is a click
const AGAIN = 3000; // milliseconds after which peaks that could not be had are asked for again
const DRAGGED = 4; // CSS pixels; less is a click
const NEAR = 8; // CSS pixels around the end of the marked part where it can be taken hold of

/** 75.2 → "1:15" */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Seconds between the times on a ruler of `width` pixels for `seconds`. */
export function tickOf(seconds, width) {
  return TICKS.find((tick) => (tick / seconds) * width >= LABEL_ROOM) ?? TICKS.at(-1);
}

/** For each of `count` bars, the largest of the `peaks` that `frames` are drawn from. */
export function bars(peaks, peakFrames, frames, count) {
  const each = frames / peakFrames / count;
  return Array.from({ length: count }, (_, bar) => {
    let most = 0;
    const last = Math.max(Math.floor(bar * each) + 1, Math.ceil((bar + 1) * each));
    for (let at = Math.floor(bar * each); at < last && at < peaks.length; at++) {
      if (peaks[at] > most) most = peaks[at];
    }
    return most;
  });
}

export class Board {
  part = null; // what is marked: [from, to] in seconds
  #looping = false;
  #ruler;
  #playhead;
  #lanes;
  #options;
  #frames = 0;
  #reach = 0;
  #loudest = PEAK_FULL / 4; // of all stems, which the waveforms are drawn against
  #stale = true;

  /**
   * @param {HTMLElement} element with #ruler, #playhead and a .wave in each .strip[data-stem]
   * @param {object} options
   * @param {(stem: string, start: number) => Promise<Uint8Array>} options.loadPeaks
   * @param {(seconds: number) => void} options.onSeek
   * @param {(from: number, to: number) => void} options.onLoop
   */
  constructor(element, options) {
    this.#options = options;
    this.#ruler = element.querySelector("#ruler");
    this.#playhead = element.querySelector("#playhead");
    this.#lanes = [...element.querySelectorAll(".strip")].map((strip) => {
      const canvas = strip.querySelector(".wave");
      return { stem: strip.dataset.stem, canvas, peaks: new Uint8Array(), faded: false, loading: false };
    });
    for (const { canvas } of this.#lanes) {
      let last = null;
      this.#drag(canvas, (at, phase) => {
        if (phase === "cancel" || (phase === "end" && at === last)) return;
        last = at;
        this.#options.onSeek(at);
      });
    }
    this.#markByDragging();
    new ResizeObserver(() => this.#redraw()).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redraw());
  }

  setSong(frames, reach) {
    if (reach < this.#reach) for (const lane of this.#lanes) lane.peaks = new Uint8Array(); // begun anew
    this.#frames = frames;
    this.#reach = reach;
    this.#stale = true;
    for (const lane of this.#lanes) this.#loadMore(lane);
  }

  /** Show these strips as not heard. */
  fade(strips) {
    const canvases = strips.map((strip) => strip.querySelector(".wave"));
    for (const lane of this.#lanes) {
      const faded = canvases.includes(lane.canvas);
      if (faded !== lane.faded) this.#stale = true;
      lane.faded = faded;
    }
  }

  /** Show a part as marked, and whether it goes round. */
  mark(part, looping) {
    this.part = part;
    this.#looping = looping;
    this.#redraw();
  }

  draw(position) {
    if (this.#stale) this.#drawAll();
    const x = this.#ruler.offsetLeft + (position / this.#seconds || 0) * this.#ruler.offsetWidth;
    this.#playhead.style.transform = `translateX(${x}px)`;
  }

  get #seconds() {
    return this.#frames / this.#options.sampleRate;
  }

  async #loadMore(lane) {
    const wanted = Math.ceil(this.#reach / this.#options.peakFrames);
    if (lane.loading || lane.peaks.length >= wanted) return;
    lane.loading = true;
    const { length } = lane.peaks;
    try {
      const more = await this.#options.loadPeaks(lane.stem, length);
      if (lane.peaks.length !== length || !more.length) return;
      const peaks = new Uint8Array(length + more.length);
      peaks.set(lane.peaks);
      peaks.set(more, length);
      lane.peaks = peaks;
      this.#loudest = more.reduce((most, peak) => Math.max(most, peak), this.#loudest);
      this.#redraw();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    } finally {
      lane.loading = false;
    }
    this.#loadMore(lane); // more may have come meanwhile
  }

  #redraw() {
    this.#stale = true;
    requestAnimationFrame(() => {
      if (this.#stale) this.#drawAll();
    });
  }

  #drawAll() {
    for (const lane of this.#lanes) this.#drawWave(lane);
    this.#drawRuler();
    this.#stale = false;
  }

  #drawWave({ canvas, peaks, faded }) {
    const { pen, width, height } = sized(canvas);
    pen.fillStyle = getComputedStyle(canvas).color;
    const count = Math.floor(width / BAR);
    const reached = (this.#reach / this.#frames) * width;
    bars(peaks, this.#options.peakFrames, this.#frames, count).forEach((most, bar) => {
      const tall = Math.max(1, (most / this.#loudest) * (height - 2));
      const x = bar * BAR;
      pen.globalAlpha = x < reached ? (faded ? 0.3 : 1) : 0.25;
      pen.fillRect(x, (height - tall) / 2, BAR - 0.75, tall);
    });
  }

  #drawRuler() {
    const { pen, width, height } = sized(this.#ruler);
    const style = getComputedStyle(this.#ruler);
    if (this.part) {
      const [from, to] = this.part.map((at) => (at / this.#seconds) * width);
      pen.fillStyle = style.getPropertyValue("--accent");
      pen.globalAlpha = this.#looping ? 0.45 : 0.18;
      pen.fillRect(from, 0, to - from, height);
      pen.globalAlpha = 1;
      pen.fillRect(from - 1, 0, 2, height);
      pen.fillRect(to - 1, 0, 2, height);
    }
    pen.fillStyle = style.color;
    pen.font = `${style.fontSize} ${style.fontFamily}`;
    pen.textBaseline = "middle";
    const tick = tickOf(this.#seconds, width);
    for (let at = 0; at < this.#seconds; at += tick) {
      const x = (at / this.#seconds) * width;
      pen.fillRect(x, height - 5, 1, 5);
      if (width - x > LABEL_ROOM / 2) pen.fillText(clock(at), x + 3, height / 2 - 1);
    }
  }

  // Hands

  /** Call `move(seconds, phase)` while a finger or the mouse goes along `canvas`. */
  #drag(canvas, move) {
    const at = ({ clientX }) => {
      const { left, width } = canvas.getBoundingClientRect();
      return Math.min(Math.max((clientX - left) / width, 0), 1) * this.#seconds;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      // A finger may be about to scroll: that is told by a pointercancel, so act when it moves or lifts.
      if (event.pointerType === "mouse") move(at(event), "start");
      else canvas.pending = at(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      if (canvas.pending !== undefined) move(canvas.pending, "start");
      canvas.pending = undefined;
      move(at(event), "move");
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return; // it was pressed elsewhere
      if (canvas.pending !== undefined) move(canvas.pending, "start");
      canvas.pending = undefined;
      move(at(event), "end");
    });
    canvas.addEventListener("pointercancel", () => {
      canvas.pending = undefined;
      move(0, "cancel");
    });
  }

  #markByDragging() {
    let [anchor, pressed, before, dragged] = [0, 0, null, false];
    this.#drag(this.#ruler, (at, phase) => {
      if (phase === "cancel") return void this.mark(before, this.#looping);
      if (phase === "start") {
        [anchor, pressed, before, dragged] = [this.#otherEnd(at) ?? at, at, this.part, false];
      }
      dragged ||= (Math.abs(at - pressed) / this.#seconds) * this.#ruler.clientWidth >= DRAGGED;
      const part = [Math.min(anchor, at), Math.max(anchor, at)];
      const isMarked = dragged && part[1] - part[0] >= SHORTEST_PART;
      if (phase === "move" && isMarked) this.mark(part, this.#looping);
      if (phase !== "end") return undefined;
      if (isMarked) this.#options.onLoop(...part);
      else this.#options.onSeek(at);
      return undefined;
    });
  }

  /** The far end of the marked part, when `at` is on its near end. */
  #otherEnd(at) {
    if (!this.part) return null;
    const near = (NEAR / this.#ruler.clientWidth) * this.#seconds;
    const index = this.part.findIndex((end) => Math.abs(end - at) <= near);
    return index < 0 ? null : this.part[1 - index];
  }
}

/** A canvas made as sharp as the screen, and emptied; sizes in CSS pixels. */
function sized(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = window.devicePixelRatio || 1;
  const [wide, tall] = [width, height].map((each) => Math.round(each * scale));
  if (canvas.width !== wide) canvas.width = wide;
  if (canvas.height !== tall) canvas.height = tall;
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}
