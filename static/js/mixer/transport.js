// The transport controls: play, seek, loop, the loop's ends, and comparing with the original.

import { formatTime, SHORTEST_SELECTION } from "./waveform_display.js";

export class Transport {
  #section;
  #player;
  #waveforms;
  #originalGain;
  #redraw;
  #play = document.getElementById("play");
  #loop = document.getElementById("loop");
  #original = document.getElementById("original");
  #seek = document.getElementById("seek");
  #position = document.getElementById("position");

  /**
   * @param {Element} section the mixer
   * @param {import("./player.js").Player} player
   * @param {import("./waveform_display.js").WaveformDisplay} waveforms
   * @param {() => number} originalGain at which the original is as loud as the mix
   * @param {() => void} redraw called when the position or the selection changed
   */
  constructor(section, player, waveforms, originalGain, redraw) {
    this.#section = section;
    this.#player = player;
    this.#waveforms = waveforms;
    this.#originalGain = originalGain;
    this.#redraw = redraw;
    this.#play.addEventListener("click", () => this.toggle());
    this.#loop.addEventListener("click", () => this.toggleLoop());
    this.#original?.addEventListener("click", () => this.toggleOriginal());
    this.#seek.addEventListener("input", () => this.seek(Number(this.#seek.value)));
    player.addEventListener("change", () => this.#showPlaying());
  }

  toggle() {
    if (this.#player.playing && !this.#player.interrupted) this.#player.pause();
    else this.#player.play();
  }

  seek(seconds) {
    this.#player.seek(Math.min(Math.max(seconds, 0), this.#player.duration));
    this.#redraw();
  }

  /** Go forward by some seconds, or back. */
  step(seconds) {
    this.seek(this.#player.position + seconds);
  }

  setLoop(from, to) {
    this.#player.setLoop(from, to);
    this.#showLoop();
  }

  toggleLoop() {
    if (this.#player.loop) this.#player.clearLoop();
    else this.#player.setLoop(...this.#selection);
    this.#showLoop();
  }

  /** Move the start (0) or the end (1) of the selection to the current position. */
  setSelectionEnd(index) {
    const selection = [...this.#selection];
    selection[index] = this.#player.position;
    if (selection[1] - selection[0] < SHORTEST_SELECTION) return;
    if (this.#player.loop) this.#player.setLoop(...selection);
    this.#waveforms.select(selection, Boolean(this.#player.loop));
    this.#redraw();
  }

  toggleOriginal() {
    if (!this.#original) return;
    this.#player.setOriginal(!this.#player.original, this.#originalGain());
    this.#original.setAttribute("aria-pressed", this.#player.original);
    this.#section.classList.toggle("original", this.#player.original);
  }

  showLength() {
    document.getElementById("length").textContent = formatTime(this.#player.duration);
    this.#seek.max = this.#player.duration;
  }

  showPosition(seconds) {
    const now = formatTime(seconds);
    if (this.#position.textContent !== now) this.#position.textContent = now;
    this.#seek.value = seconds;
    // Not while it plays: screen readers would announce every second.
    if (this.#player.playing) return;
    this.#seek.setAttribute("aria-valuetext", `${now} / ${formatTime(this.#player.duration)}`);
  }

  /** The selection, or the whole song. */
  get #selection() {
    return this.#waveforms.selection ?? [0, this.#player.duration];
  }

  #showLoop() {
    const { loop } = this.#player;
    this.#waveforms.select(loop ? [loop.from, loop.to] : this.#waveforms.selection, Boolean(loop));
    this.#loop.setAttribute("aria-pressed", Boolean(loop));
    this.#redraw();
  }

  #showPlaying() {
    if (!this.#section.isConnected) return;
    const { pause, play } = this.#section.dataset;
    this.#play.setAttribute("aria-label", this.#player.playing ? pause : play);
    this.#play.classList.toggle("playing", this.#player.playing);
    this.#redraw();
  }
}
