// The mixer on a song's page: creates its parts and keeps them in step with job, player and mix.
//
// The server renders all of it. Without Web Audio it stays hidden, and the native players are used.
// htmx's polls bring what the job has finished so far, in #reach.

import { chunkLoader } from "./chunk_store.js";
import { listenToDownloadForm, offerSelection, setDownloadedMix } from "./download_form.js";
import { addShortcuts } from "./keyboard_shortcuts.js";
import { LevelMeter } from "./level_meter.js";
import { mixText, originalGain, parseMix } from "./mix.js";
import { MixControls } from "./mix_controls.js";
import { PitchOutput } from "./pitch_output.js";
import { Player } from "./player.js";
import { putMixInAddress, savedMix, saveMix } from "./saved_mixes.js";
import { StatusLine } from "./status_line.js";
import { Transport } from "./transport.js";
import { WaveformDisplay } from "./waveform_display.js";

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
  #waveforms;
  #transport;
  #controls;
  #output;
  #status = new StatusLine(byId("hold"));
  #master = new LevelMeter(byId("meter-master"));
  #meters;
  #mix;
  #drawing = false;

  constructor(section) {
    this.#section = section;
    this.#texts = section.dataset;
    this.#strips = [...section.querySelectorAll(".strip")];
    this.#names = this.#strips.map((strip) => strip.dataset.stem);
    this.#meters = this.#strips.map((strip) => new LevelMeter(strip.querySelector(".meter")));
    this.#makeSound();
    this.#makeControls();
    document.documentElement.classList.add("mixing");
    section.hidden = false;
    this.#loadSavedMix();
    this.#showFinished();
    this.#listenToPolls();
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
        () => location.reload(), // the stems are gone: the new page says so
      ),
    });
    this.#output = new PitchOutput(this.#context, {
      onLoad: () => this.#shiftPitch(),
      onError: () => this.#flash(this.#texts.unshifted),
    });
    this.#player.output.connect(this.#output.input);
    if (this.#output.canShift) return;
    for (const name of ["speed", "key"]) byId(name).disabled = true;
    byId("no-stretch").hidden = false;
  }

  #makeControls() {
    this.#waveforms = new WaveformDisplay(byId("board"), {
      peakFrames: Number(this.#texts.peakFrames),
      sampleRate: SAMPLE_RATE,
      loadPeaks: (stem, start) => loadPeaks(this.#texts.tracks, stem, start),
      onSeek: (seconds) => this.#transport.seek(seconds),
      onSelect: (from, to) => this.#transport.setLoop(from, to),
    });
    this.#transport = new Transport(
      this.#section,
      this.#player,
      this.#waveforms,
      () => this.#originalGain(),
      () => this.#draw(),
    );
    this.#controls = new MixControls(this.#strips, this.#texts, (mix) => {
      saveMix(this.#texts.song, mixText(mix));
      this.#showMix();
    });
    listenToDownloadForm(() => this.#waveforms.selection, this.#texts.making);
    byId("share").addEventListener("click", () => this.#share());
    byId("help").addEventListener("click", () => byId("keys").showModal());
    this.#addShortcuts();
  }

  #addShortcuts() {
    const transport = this.#transport;
    const step = ({ shiftKey }) => (shiftKey ? SMALL_STEP : STEP);
    addShortcuts({
      " ": () => transport.toggle(),
      ArrowLeft: (event) => transport.step(-step(event)),
      ArrowRight: (event) => transport.step(step(event)),
      Home: () => transport.seek(0),
      End: () => transport.seek(this.#player.duration),
      ArrowUp: () => this.#controls.moveMaster(MASTER_STEP),
      ArrowDown: () => this.#controls.moveMaster(-MASTER_STEP),
      "[": () => transport.setSelectionEnd(0),
      "]": () => transport.setSelectionEnd(1),
      l: () => transport.toggleLoop(),
      o: () => transport.toggleOriginal(),
      "?": () => byId("keys").showModal(),
      digit: (number, { shiftKey }) => {
        this.#strips[number - 1]?.querySelector(shiftKey ? ".solo" : ".mute").click();
      },
    });
  }

  // The job

  #listenToPolls() {
    document.body.addEventListener("htmx:oobAfterSwap", ({ detail }) => {
      if (detail.target.id === "reach") this.#showFinished();
      // The download form comes together with the stems' loudness.
      if (detail.target.id === "takeaway" && this.#section.isConnected) this.#showMix();
    });
    addEventListener("hashchange", () => this.#loadSavedMix());
    // A job that failed or was cancelled has nothing to play: htmx removed the mixer.
    const end = () => {
      if (this.#section.isConnected) return;
      document.body.removeEventListener("htmx:afterSettle", end);
      this.#player.close();
      this.#context.close();
    };
    document.body.addEventListener("htmx:afterSettle", end);
  }

  #showFinished() {
    const { reach, frames } = song();
    this.#player.setFrames(frames);
    this.#player.setReach(reach);
    this.#waveforms.setSong(frames, reach);
    this.#transport.showLength();
    this.#draw();
  }

  // The mix

  #loadSavedMix() {
    this.#mix = parseMix(savedMix(this.#texts.song), this.#names);
    this.#showMix();
  }

  #showMix() {
    this.#controls.show(this.#mix);
    this.#player.setMix(this.#mix);
    if (this.#player.original) this.#player.setOriginal(true, this.#originalGain());
    this.#shiftPitch();
    setDownloadedMix(this.#mix);
    this.#waveforms.fade(this.#controls.inaudibleStrips);
    this.#draw();
  }

  /** Play at the mix's speed and in its key. */
  #shiftPitch() {
    const { speed, key } = this.#mix;
    const rate = this.#output.canShift ? speed / 100 : 1;
    const semitones = this.#output.canShift ? key - 12 * Math.log2(rate) : 0;
    if (this.#output.shift(semitones)) this.#player.setRate(rate);
  }

  /** The gain at which the original is as loud as the mix. */
  #originalGain() {
    const loudness = { mixture: song().loudness };
    for (const name of this.#names) {
      const text = byId(`level-${name}`).dataset.loudness;
      if (text) loudness[name] = Number(text);
    }
    return originalGain(this.#mix, loudness, song().peak);
  }

  async #share() {
    putMixInAddress(mixText(this.#mix));
    try {
      await navigator.clipboard.writeText(location.href);
      this.#flash(this.#texts.copied);
    } catch {
      this.#flash(this.#texts.linked); // no clipboard without https
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
    const position = this.#audiblePosition;
    this.#transport.showPosition(position);
    this.#waveforms.draw(position);
    offerSelection(this.#waveforms.selection);
    this.#names.forEach((name, at) => {
      this.#meters[at].show(this.#player.level(name).peak, playing);
    });
    this.#master.show(this.#player.level("master").peak, playing);
    this.#showStatus();
    if (playing) this.#draw();
  }

  /** What is heard now, in seconds: the pitch shifter adds latency. */
  get #audiblePosition() {
    const latency = this.#player.playing ? this.#output.latency * this.#player.rate : 0;
    return Math.max(0, this.#player.position - latency);
  }

  /** Say why nothing is heard, or that the mix clips. */
  #showStatus() {
    const { failed, edge, loading, clips } = this.#texts;
    let problem = "";
    if (this.#player.failing) problem = failed;
    else if (this.#player.waiting) {
      problem = this.#player.position * SAMPLE_RATE >= song().reach - 1 ? edge : loading;
    }
    this.#section.classList.toggle("waiting", Boolean(problem));
    this.#status.show(problem || (this.#master.isClipping ? clips : ""));
  }

  #flash(text) {
    this.#status.flash(text, () => this.#draw());
  }
}

/** What the page says of the song. */
function song() {
  const { value, dataset } = byId("reach");
  return {
    reach: Number(value),
    frames: Number(dataset.frames),
    loudness: dataset.loudness ? Number(dataset.loudness) : undefined,
    peak: Number(dataset.peak) || undefined,
  };
}

/** A stem's peaks from `start` on; none where there are no more yet. */
async function loadPeaks(tracks, stem, start) {
  const response = await fetch(`${tracks}${stem}/peaks`, { headers: { Range: `bytes=${start}-` } });
  return new Uint8Array(response.status === 206 ? await response.arrayBuffer() : 0);
}

const section = byId("mixer");
if (section && window.AudioContext) new Mixer(section);
