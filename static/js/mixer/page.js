// The mixer in a song's page: puts its parts together, and has them follow song, player and mix.
//
// The server renders all of it, with every text; without Web Audio it stays hidden and the native
// players below remain. What the job has finished so far comes with htmx's polls, in #reach.

import { chunkLoader } from "./chunks.js";
import { keepMix, keptMix, linkMix } from "./keeping.js";
import { listenToKeys } from "./keys.js";
import { Meter } from "./meter.js";
import { mixText, originalGain, parseMix } from "./mix.js";
import { Notice } from "./notice.js";
import { Outlet } from "./outlet.js";
import { Panel } from "./panel.js";
import { Player } from "./player.js";
import { listenToTakeaway, offerPart, tellForm } from "./takeaway.js";
import { Transport } from "./transport.js";
import { Board } from "./waveform.js";

const SAMPLE_RATE = 44100;
const SMALL_STEP = 1; // seconds
const STEP = 5;
const MASTER_STEP = 2; // of the fader

const byId = (id) => document.getElementById(id);

class Mixer {
  #section;
  #texts;
  #strips;
  #names;
  #context = new AudioContext({ sampleRate: SAMPLE_RATE });
  #player;
  #board;
  #transport;
  #panel;
  #outlet;
  #notice = new Notice(byId("hold"));
  #master = new Meter(byId("meter-master"));
  #meters;
  #mix;
  #drawing = false;

  constructor(section) {
    this.#section = section;
    this.#texts = section.dataset;
    this.#strips = [...section.querySelectorAll(".strip")];
    this.#names = this.#strips.map((strip) => strip.dataset.stem);
    this.#meters = this.#strips.map((strip) => new Meter(strip.querySelector(".meter")));
    this.#makeSound();
    this.#makeControls();
    document.documentElement.classList.add("mixing");
    section.hidden = false;
    this.#takeKeptMix();
    this.#grow();
    this.#follow();
  }

  #makeSound() {
    const { tracks, chunkFrames } = this.#texts;
    const { frames, reach } = song();
    this.#player = new Player({
      context: this.#context,
      stems: this.#names,
      frames,
      reach,
      chunkFrames: Number(chunkFrames),
      load: chunkLoader(
        (stem, index) => `${tracks}${stem}/chunks/${index}`,
        () => location.reload(), // the page will say so
      ),
    });
    this.#outlet = new Outlet(this.#context, {
      changed: () => this.#stretch(),
      failed: () => this.#tell(this.#texts.unshifted),
    });
    this.#player.output.connect(this.#outlet.input);
    if (this.#outlet.able) return;
    for (const name of ["speed", "key"]) byId(name).disabled = true;
    byId("no-stretch").hidden = false;
  }

  #makeControls() {
    this.#board = new Board(byId("board"), {
      peakFrames: Number(this.#texts.peakFrames),
      sampleRate: SAMPLE_RATE,
      loadPeaks: (...part) => loadPeaks(this.#texts.tracks, ...part),
      onSeek: (seconds) => this.#transport.seek(seconds),
      onLoop: (from, to) => this.#transport.setLoop(from, to),
    });
    this.#transport = new Transport(
      this.#section,
      this.#player,
      this.#board,
      () => this.#equalGain(),
      () => this.#draw(),
    );
    this.#panel = new Panel(this.#strips, this.#texts, (mix) => {
      keepMix(this.#texts.song, mixText(mix));
      this.#showMix();
    });
    listenToTakeaway(() => this.#board.part, this.#texts.making);
    byId("share").addEventListener("click", () => this.#share());
    byId("help").addEventListener("click", () => byId("keys").showModal());
    this.#listenToKeys();
  }

  #listenToKeys() {
    const transport = this.#transport;
    const step = ({ shiftKey }) => (shiftKey ? SMALL_STEP : STEP);
    listenToKeys({
      " ": () => transport.toggle(),
      ArrowLeft: (event) => transport.step(-step(event)),
      ArrowRight: (event) => transport.step(step(event)),
      Home: () => transport.seek(0),
      End: () => transport.seek(this.#player.duration),
      ArrowUp: () => this.#panel.turn(MASTER_STEP),
      ArrowDown: () => this.#panel.turn(-MASTER_STEP),
      "[": () => transport.mark(0),
      "]": () => transport.mark(1),
      l: () => transport.toggleLoop(),
      o: () => transport.toggleOriginal(),
      "?": () => byId("keys").showModal(),
      digit: (number, { shiftKey }) => {
        this.#strips[number - 1]?.querySelector(shiftKey ? ".solo" : ".mute").click();
      },
    });
  }

  // What happens to the page

  #follow() {
    document.body.addEventListener("htmx:oobAfterSwap", ({ detail }) => {
      if (detail.target.id === "reach") this.#grow();
      // With the downloads comes how loud the stems are.
      if (detail.target.id === "takeaway" && this.#section.isConnected) this.#showMix();
    });
    addEventListener("hashchange", () => this.#takeKeptMix());
    // A job that failed or was cancelled took with it what there was to hear.
    const end = () => {
      if (this.#section.isConnected) return;
      document.body.removeEventListener("htmx:afterSettle", end);
      this.#player.close();
      this.#context.close();
    };
    document.body.addEventListener("htmx:afterSettle", end);
  }

  #grow() {
    const { reach, frames } = song();
    this.#player.setFrames(frames);
    this.#player.setReach(reach);
    this.#board.setSong(frames, reach);
    this.#transport.showLength();
    this.#draw();
  }

  // The mix

  #takeKeptMix() {
    this.#mix = parseMix(keptMix(this.#texts.song), this.#names);
    this.#showMix();
  }

  /** Let page and player follow the mix. */
  #showMix() {
    this.#panel.show(this.#mix);
    this.#player.setMix(this.#mix);
    if (this.#player.original) this.#player.setOriginal(true, this.#equalGain());
    this.#stretch();
    tellForm(this.#mix);
    this.#board.fade(this.#panel.unheard);
    this.#draw();
  }

  /** Play at the mix's speed, and shift the pitch by what that and the key ask for. */
  #stretch() {
    const { speed, key } = this.#mix;
    const rate = this.#outlet.able ? speed / 100 : 1;
    const semitones = this.#outlet.able ? key - 12 * Math.log2(rate) : 0;
    if (this.#outlet.shift(semitones)) this.#player.setRate(rate);
  }

  /** The gain at which the original is as loud as the mix. */
  #equalGain() {
    const loudness = { mixture: song().loudness };
    for (const name of this.#names) {
      const text = byId(`level-${name}`).dataset.loudness;
      if (text) loudness[name] = Number(text);
    }
    return originalGain(this.#mix, loudness, song().peak);
  }

  async #share() {
    linkMix(mixText(this.#mix));
    try {
      await navigator.clipboard.writeText(location.href);
      this.#tell(this.#texts.copied);
    } catch {
      this.#tell(this.#texts.linked); // no clipboard without https
    }
  }

  // Drawing

  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (this.#section.isConnected) this.#drawNow();
    });
  }

  #drawNow() {
    const { playing } = this.#player;
    const position = this.#heard;
    this.#transport.showPosition(position);
    this.#board.draw(position);
    offerPart(this.#board.part);
    this.#names.forEach((name, at) => {
      this.#meters[at].show(this.#player.level(name).peak, playing);
    });
    this.#master.show(this.#player.level("master").peak, playing);
    this.#sayWhatHolds();
    if (playing) this.#draw();
  }

  /** The time that is heard now: what is shifted comes out a little later. */
  get #heard() {
    const late = this.#player.playing ? this.#outlet.latency * this.#player.rate : 0;
    return Math.max(0, this.#player.position - late);
  }

  /** Why nothing is heard when it should, or that too much is. */
  #sayWhatHolds() {
    const { failed, edge, loading, clips } = this.#texts;
    let words = "";
    if (this.#player.failing) words = failed;
    else if (this.#player.waiting) {
      words = this.#player.position * SAMPLE_RATE >= song().reach - 1 ? edge : loading;
    }
    this.#section.classList.toggle("waiting", Boolean(words));
    this.#notice.hold(words || (this.#master.over ? clips : ""));
  }

  #tell(words) {
    this.#notice.tell(words, () => this.#draw());
  }
}

/** What the job has finished. */
function song() {
  const { value, dataset } = byId("reach");
  return {
    reach: Number(value),
    frames: Number(dataset.frames),
    loudness: dataset.loudness ? Number(dataset.loudness) : undefined,
    peak: Number(dataset.peak) || undefined,
  };
}

/** The bytes of a stem's peaks from `start` on; none where there are none (yet). */
async function loadPeaks(tracks, stem, start) {
  const response = await fetch(`${tracks}${stem}/peaks`, { headers: { Range: `bytes=${start}-` } });
  return new Uint8Array(response.status === 206 ? await response.arrayBuffer() : 0);
}

const section = byId("mixer");
if (section && window.AudioContext) new Mixer(section);
