// Where the song is: play, seek, the loop and the part it goes round, the original.

import { clock, SHORTEST_PART } from "./waveform.js";

export class Transport {
  #section;
  #player;
  #board;
  #gain;
  #shown;
  #play = document.getElementById("play");
  #loop = document.getElementById("loop");
  #original = document.getElementById("original");
  #seek = document.getElementById("seek");
  #position = document.getElementById("position");

  /**
   * @param {Element} section the mixer
   * @param {import("./player.js").Player} player
   * @param {import("./waveform.js").Board} board
   * @param {() => number} gain at which the original is as loud as the mix
   * @param {() => void} shown called when there is something new to draw
   */
  constructor(section, player, board, gain, shown) {
    this.#section = section;
    this.#player = player;
    this.#board = board;
    this.#gain = gain;
    this.#shown = shown;
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
    this.#shown();
  }

  /** Go on or back by so many seconds. */
  step(seconds) {
    this.seek(this.#player.position + seconds);
  }

  setLoop(from, to) {
    this.#player.setLoop(from, to);
    this.#showLoop();
  }

  toggleLoop() {
    if (this.#player.loop) this.#player.clearLoop();
    else this.#player.setLoop(...this.#part);
    this.#showLoop();
  }

  /** Mark a part from (0) or up to (1) where the song is now. */
  mark(end) {
    const part = [...this.#part];
    part[end] = this.#player.position;
    if (part[1] - part[0] < SHORTEST_PART) return;
    if (this.#player.loop) this.#player.setLoop(...part);
    this.#board.mark(part, Boolean(this.#player.loop));
    this.#shown();
  }

  toggleOriginal() {
    if (!this.#original) return;
    this.#player.setOriginal(!this.#player.original, this.#gain());
    this.#original.setAttribute("aria-pressed", this.#player.original);
    this.#section.classList.toggle("original", this.#player.original);
  }

  /** The song is so long now. */
  showLength() {
    document.getElementById("length").textContent = clock(this.#player.duration);
    this.#seek.max = this.#player.duration;
  }

  /** Show where the song is, in seconds. */
  showPosition(seconds) {
    const now = clock(seconds);
    if (this.#position.textContent !== now) this.#position.textContent = now;
    this.#seek.value = seconds;
    // Not while it plays: screen readers would tell every second.
    if (this.#player.playing) return;
    this.#seek.setAttribute("aria-valuetext", `${now} / ${clock(this.#player.duration)}`);
  }

  get #part() {
    return this.#board.part ?? [0, this.#player.duration];
  }

  #showLoop() {
    const { loop } = this.#player;
    this.#board.mark(loop ? [loop.from, loop.to] : this.#board.part, Boolean(loop));
    this.#loop.setAttribute("aria-pressed", Boolean(loop));
    this.#shown();
  }

  #showPlaying() {
    if (!this.#section.isConnected) return;
    const { pause, play } = this.#section.dataset;
    this.#play.setAttribute("aria-label", this.#player.playing ? pause : play);
    this.#play.classList.toggle("playing", this.#player.playing);
    this.#shown();
  }
}
