// The waveform display: a time ruler, each stem's waveform, the playhead and the selection, which
// may be looped. Click or drag on a waveform to seek; drag on the ruler to select, click to seek.

export const SHORTEST_SELECTION = 0.1; // seconds

const PEAK_FULL = 255;
// Seconds between times on the ruler
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400];
const RETRY_MS = 3000; // until peaks that failed to load are requested again
// In CSS pixels
const BAR_WIDTH = 2; // of a waveform, with the gap
const BAR_GAP = 0.75;
const LABEL_WIDTH = 64; // of a time on the ruler
const DRAG_DISTANCE = 4; // less is a click
const GRAB_DISTANCE = 8; // from an end of the selection, within which a drag moves that end

/** 75.2 → "1:15", 4000 → "1:06:40" */
export function formatTime(seconds) {
  const whole = Math.floor(seconds);
  const two = (count) => String(count).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = two(whole % 60);
  return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}

/** Seconds between the times on a ruler of `width` pixels for a song of `seconds`. */
export function tickSpacing(seconds, width) {
  return TICKS.find((tick) => (tick / seconds) * width >= LABEL_WIDTH) ?? TICKS.at(-1);
}

/** The heights of `count` bars for a song of `frames`: the largest of each bar's `peaks`. */
export function barHeights(peaks, peakFrames, frames, count) {
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

export class WaveformDisplay {
  selection = null; // [from, to] in seconds
  #looping = false;
  #ruler;
  #playhead;
  #lanes;
  #options;
  #frames = 0;
  #reach = 0; // frames that are finished
  #loudest = PEAK_FULL / 4; // of all stems: the peak that is drawn at full height
  #stale = true; // has to be drawn again

  /**
   * @param {HTMLElement} element with #ruler, #playhead and a .wave in each .strip[data-stem]
   * @param {object} options
   * @param {(stem: string, start: number) => Promise<Uint8Array>} options.loadPeaks
   * @param {(seconds: number) => void} options.onSeek
   * @param {(from: number, to: number) => void} options.onSelect
   */
  constructor(element, options) {
    this.#options = options;
    this.#ruler = element.querySelector("#ruler");
    this.#playhead = element.querySelector("#playhead");
    this.#lanes = [...element.querySelectorAll(".strip")].map((strip) => {
      const canvas = strip.querySelector(".wave");
      return {
        stem: strip.dataset.stem,
        canvas,
        peaks: new Uint8Array(),
        faded: false,
        loading: false,
      };
    });
    for (const { canvas } of this.#lanes) {
      let last = null;
      this.#drag(canvas, (at, phase) => {
        if (phase === "cancel" || (phase === "end" && at === last)) return;
        last = at;
        this.#options.onSeek(at);
      });
    }
    this.#selectByDragging();
    new ResizeObserver(() => this.#redraw()).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redraw());
  }

  setSong(frames, reach) {
    const restarted = reach < this.#reach;
    if (restarted) for (const lane of this.#lanes) lane.peaks = new Uint8Array();
    this.#frames = frames;
    this.#reach = reach;
    this.#stale = true;
    for (const lane of this.#lanes) this.#loadMore(lane);
  }

  /** Draw the waveforms of these strips pale. */
  fade(strips) {
    const canvases = strips.map((strip) => strip.querySelector(".wave"));
    for (const lane of this.#lanes) {
      const faded = canvases.includes(lane.canvas);
      if (faded !== lane.faded) this.#stale = true;
      lane.faded = faded;
    }
  }

  /** Show a selection, and whether it is looped. */
  select(selection, looping) {
    this.selection = selection;
    this.#looping = looping;
    this.#redraw();
  }

  /** Show the playhead at a position in seconds. */
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
      await new Promise((resolve) => void setTimeout(resolve, RETRY_MS));
    } finally {
      lane.loading = false;
    }
    this.#loadMore(lane); // more may be finished by now
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
    const { pen, width, height } = cleared(canvas);
    pen.fillStyle = getComputedStyle(canvas).color;
    const count = Math.floor(width / BAR_WIDTH);
    const finished = (this.#reach / this.#frames) * width;
    barHeights(peaks, this.#options.peakFrames, this.#frames, count).forEach((most, bar) => {
      const tall = Math.max(1, (most / this.#loudest) * (height - 2));
      const x = bar * BAR_WIDTH;
      pen.globalAlpha = x < finished ? (faded ? 0.3 : 1) : 0.25;
      pen.fillRect(x, (height - tall) / 2, BAR_WIDTH - BAR_GAP, tall);
    });
  }

  #drawRuler() {
    const { pen, width, height } = cleared(this.#ruler);
    const style = getComputedStyle(this.#ruler);
    if (this.selection) {
      const [from, to] = this.selection.map((at) => (at / this.#seconds) * width);
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
    const tick = tickSpacing(this.#seconds, width);
    for (let at = 0; at < this.#seconds; at += tick) {
      const x = (at / this.#seconds) * width;
      pen.fillRect(x, height - 5, 1, 5);
      if (width - x > LABEL_WIDTH / 2) pen.fillText(formatTime(at), x + 3, height / 2 - 1);
    }
  }

  // Pointers

  /** Call `move(seconds, phase)` for drags on `canvas`: "start", "move", "end" or "cancel". */
  #drag(canvas, move) {
    const at = ({ clientX }) => {
      const { left, width } = canvas.getBoundingClientRect();
      return Math.min(Math.max((clientX - left) / width, 0), 1) * this.#seconds;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      // A finger may begin to scroll, which fires pointercancel: wait until it moves or lifts.
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
      if (!canvas.hasPointerCapture(event.pointerId)) return; // pressed elsewhere
      if (canvas.pending !== undefined) move(canvas.pending, "start");
      canvas.pending = undefined;
      move(at(event), "end");
    });
    canvas.addEventListener("pointercancel", () => {
      canvas.pending = undefined;
      move(0, "cancel");
    });
  }

  #selectByDragging() {
    let [anchor, pressed, before, dragged] = [0, 0, null, false];
    this.#drag(this.#ruler, (at, phase) => {
      if (phase === "cancel") return void this.select(before, this.#looping);
      if (phase === "start") {
        [anchor, pressed, before, dragged] = [
          this.#oppositeEnd(at) ?? at,
          at,
          this.selection,
          false,
        ];
      }
      dragged ||=
        (Math.abs(at - pressed) / this.#seconds) * this.#ruler.clientWidth >= DRAG_DISTANCE;
      const selection = [Math.min(anchor, at), Math.max(anchor, at)];
      const selects = dragged && selection[1] - selection[0] >= SHORTEST_SELECTION;
      if (phase === "move" && selects) this.select(selection, this.#looping);
      if (phase !== "end") return undefined;
      if (selects) this.#options.onSelect(...selection);
      else this.#options.onSeek(at);
      return undefined;
    });
  }

  /** The selection's opposite end where `at` is close to one of its ends, or null. */
  #oppositeEnd(at) {
    if (!this.selection) return null;
    const near = (GRAB_DISTANCE / this.#ruler.clientWidth) * this.#seconds;
    const index = this.selection.findIndex((end) => Math.abs(end - at) <= near);
    return index < 0 ? null : this.selection[1 - index];
  }
}

/** Fit a canvas to the screen's resolution and clear it; sizes are in CSS pixels. */
function cleared(canvas) {
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
