// The mixer in a song's page: its buttons, faders, waveforms and keys around the player.
//
// The server renders all of it, with every text; without Web Audio it stays hidden and the native
// players below remain. What the job has finished so far comes with htmx's polls, in #reach.

import { chunkLoader } from "./chunks.js";
import { keepMix, keptMix, linkMix } from "./keeping.js";
import { listenToKeys } from "./keys.js";
import { Meter } from "./meter.js";
import { gainOf, mixText, neutral, originalGain, parseMix } from "./mix.js";
import { Outlet } from "./outlet.js";
import { Player } from "./player.js";
import { Board, clock, SHORTEST_PART } from "./waveform.js";

const SAMPLE_RATE = 44100;
const SMALL_STEP = 1; // seconds
const STEP = 5;
const SAID = 3000; // milliseconds for which something is said that passes

const section = document.getElementById("mixer");
if (section && window.AudioContext) start();

function start() {
  const $ = (id) => document.getElementById(id);
  const texts = section.dataset;
  const strips = [...section.querySelectorAll(".strip")];
  const names = strips.map((strip) => strip.dataset.stem);
  const context = new AudioContext({ sampleRate: SAMPLE_RATE });
  const player = new Player({
    context,
    stems: names,
    frames: song().frames,
    reach: song().reach,
    chunkFrames: Number(texts.chunkFrames),
    load: chunkLoader(
      (stem, index) => `${texts.tracks}${stem}/chunks/${index}`,
      () => location.reload(), // the page will say so
    ),
  });
  const board = new Board($("board"), {
    peakFrames: Number(texts.peakFrames),
    sampleRate: SAMPLE_RATE,
    loadPeaks,
    onSeek: seek,
    onLoop: setLoop,
  });
  const outlet = new Outlet(context, { changed: stretch, failed: () => tell(texts.unshifted) });
  const master = new Meter($("meter-master"));
  const meters = strips.map((strip) => new Meter(strip.querySelector(".meter")));
  let mix = parseMix(keptMix(texts.song), names);
  let drawing = false;
  let said = "";
  let told = -SAID; // when something was said that passes

  if (!outlet.able) {
    for (const name of ["speed", "key"]) $(name).disabled = true;
    $("no-stretch").hidden = false;
  }
  document.documentElement.classList.add("mixing");
  section.hidden = false;
  player.output.connect(outlet.input);
  showMix();
  grow();

  document.addEventListener("click", ({ target }) => {
    if (target.id !== "marked") return;
    const fields = target.form.elements;
    const most = Number(fields.to.max);
    [fields.from.value, fields.to.value] = board.part.map((at) => Math.min(at, most).toFixed(2));
    fields.to.dispatchEvent(new Event("change", { bubbles: true }));
  });

  document.addEventListener("submit", ({ target }) => {
    // All other formats are sent while they are made.
    const whole = target.matches(".stems") && target.elements.format.value.startsWith("m4a");
    if (whole) $("mix-level").textContent = texts.making;
  });

  /** The downloads may have come with the last poll. */
  function offerPart() {
    if ($("marked")) $("marked").disabled = !board.part;
  }

  // What the job has finished

  function song() {
    const { value, dataset } = $("reach");
    return {
      reach: Number(value),
      frames: Number(dataset.frames),
      loudness: dataset.loudness ? Number(dataset.loudness) : undefined,
      peak: Number(dataset.peak) || undefined,
    };
  }

  function grow() {
    const { reach, frames } = song();
    player.setFrames(frames);
    player.setReach(reach);
    board.setSong(frames, reach);
    $("length").textContent = clock(player.duration);
    $("seek").max = player.duration;
    draw();
  }

  document.body.addEventListener("htmx:oobAfterSwap", ({ detail }) => {
    if (detail.target.id === "reach") grow();
    if (detail.target.id === "takeaway" && section.isConnected) {
      showMix(); // its loudness is known now
      offerPart();
    }
  });

  // A job that failed or was cancelled took with it what there was to hear.
  document.body.addEventListener("htmx:afterSettle", function end() {
    if (section.isConnected) return;
    document.body.removeEventListener("htmx:afterSettle", end);
    player.close();
    context.close();
  });

  /** The bytes of a stem's peaks from `start` on; none where there are none (yet). */
  async function loadPeaks(stem, start) {
    const response = await fetch(`${texts.tracks}${stem}/peaks`, {
      headers: { Range: `bytes=${start}-` },
    });
    return new Uint8Array(response.status === 206 ? await response.arrayBuffer() : 0);
  }

  // The transport

  function toggle() {
    if (player.playing && !player.interrupted) player.pause();
    else player.play();
  }

  function seek(seconds) {
    player.seek(Math.min(Math.max(seconds, 0), player.duration));
    draw();
  }

  function setLoop(from, to) {
    player.setLoop(from, to);
    showLoop();
  }

  function toggleLoop() {
    if (player.loop) player.clearLoop();
    else player.setLoop(...(board.part ?? [0, player.duration]));
    showLoop();
  }

  /** Mark a part from (0) or up to (1) where the song is now. */
  function mark(end) {
    const part = [...(board.part ?? [0, player.duration])];
    part[end] = player.position;
    if (part[1] - part[0] < SHORTEST_PART) return;
    if (player.loop) player.setLoop(...part);
    board.mark(part, Boolean(player.loop));
    offerPart();
  }

  function showLoop() {
    const { loop } = player;
    board.mark(loop ? [loop.from, loop.to] : board.part, Boolean(loop));
    offerPart();
    $("loop").setAttribute("aria-pressed", Boolean(loop));
    draw();
  }

  function toggleOriginal() {
    if (!$("original")) return;
    player.setOriginal(!player.original, equalGain());
    $("original").setAttribute("aria-pressed", player.original);
    section.classList.toggle("original", player.original);
  }

  /** The gain at which the original is as loud as the mix. */
  function equalGain() {
    const loudness = { mixture: song().loudness };
    for (const name of names) {
      const text = $(`level-${name}`).dataset.loudness;
      if (text) loudness[name] = Number(text);
    }
    return originalGain(mix, loudness, song().peak);
  }

  $("play").addEventListener("click", toggle);
  $("loop").addEventListener("click", toggleLoop);
  $("original")?.addEventListener("click", toggleOriginal);
  $("seek").addEventListener("input", (event) => seek(Number(event.target.value)));

  player.addEventListener("change", () => {
    if (!section.isConnected) return;
    const word = player.playing ? texts.pause : texts.play;
    $("play").setAttribute("aria-label", word);
    $("play").classList.toggle("playing", player.playing);
    draw();
  });

  // The mix

  for (const strip of strips) {
    const own = () => mix.stems[strip.dataset.stem];
    const on = (selector, type, change) =>
      strip.querySelector(selector).addEventListener(type, ({ target }) => {
        change(own(), target);
        changed();
      });
    on(".mute", "click", (stem) => (stem.mute = !stem.mute));
    on(".solo", "click", (stem) => (stem.solo = !stem.solo));
    on(".volume", "input", (stem, { value }) => (stem.volume = Number(value)));
    on(".pan", "input", (stem, { value }) => (stem.pan = Number(value)));
    const usual = neutral(names).stems[strip.dataset.stem];
    on(".volume", "dblclick", (stem) => (stem.volume = usual.volume));
    on(".pan", "dblclick", (stem) => (stem.pan = usual.pan));
  }
  for (const name of ["master", "speed", "key"]) {
    $(name).addEventListener("input", ({ target }) => {
      mix[name] = Number(target.value);
      changed();
    });
    $(name).addEventListener("dblclick", () => {
      mix[name] = neutral(names)[name];
      changed();
    });
  }
  $("preset").addEventListener("change", ({ target }) => {
    mix.stems = parseMix(target.value, names).stems;
    changed();
  });
  $("share").addEventListener("click", async () => {
    linkMix(mixText(mix));
    try {
      await navigator.clipboard.writeText(location.href);
      tell(texts.copied);
    } catch {
      tell(texts.linked); // no clipboard without https
    }
  });

  addEventListener("hashchange", () => {
    mix = parseMix(keptMix(texts.song), names);
    showMix();
  });

  /** The listener changed the mix. */
  function changed() {
    keepMix(texts.song, mixText(mix));
    showMix();
  }

  /** Let page and player follow the mix. */
  function showMix() {
    player.setMix(mix);
    if (player.original) player.setOriginal(true, equalGain());
    stretch();
    const solo = Object.values(mix.stems).some((stem) => stem.solo);
    for (const strip of strips) {
      const stem = mix.stems[strip.dataset.stem];
      strip.querySelector(".mute").setAttribute("aria-pressed", stem.mute);
      strip.querySelector(".solo").setAttribute("aria-pressed", stem.solo);
      strip.classList.toggle("unheard", stem.mute || (solo && !stem.solo));
      show(strip.querySelector(".volume"), stem.volume, decibels(stem.volume));
      show(strip.querySelector(".pan"), stem.pan, side(stem.pan));
    }
    show($("master"), mix.master, decibels(mix.master));
    show($("speed"), mix.speed, `${mix.speed} %`);
    show($("key"), mix.key, mix.key > 0 ? `+${mix.key}` : `${mix.key}`);
    $("speed-now").textContent = $("speed").getAttribute("aria-valuetext");
    $("key-now").textContent = $("key").getAttribute("aria-valuetext");
    const stemsOnly = mixText({ ...neutral(names), stems: mix.stems });
    const known = [...$("preset").options].some(({ value }) => value === stemsOnly);
    $("preset").value = known ? stemsOnly : "own";
    tellForm();
    board.fade(strips.filter((strip) => strip.classList.contains("unheard")));
    draw();
  }

  /** What is downloaded is the mix, at its own speed and key. */
  function tellForm() {
    const field = document.querySelector("input[name=mix]");
    const text = mixText({ ...mix, speed: 100, key: 0 });
    if (!field || field.value === text) return;
    field.value = text;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function show(slider, value, words) {
    slider.value = value;
    slider.setAttribute("aria-valuetext", words);
    slider.title = words;
  }

  function decibels(volume) {
    const gain = gainOf(volume);
    if (gain === 0) return "−∞ dB";
    const text = (20 * Math.log10(gain)).toFixed(1);
    return `${text.replace("-0.0", "0.0").replace("-", "−")} dB`;
  }

  function side(pan) {
    if (pan === 0) return texts.centre;
    return `${Math.abs(pan)} % ${pan < 0 ? texts.left : texts.right}`;
  }

  // Speed and key

  /** Play at the mix's speed, and shift the pitch by what that and the key ask for. */
  function stretch() {
    const rate = outlet.able ? mix.speed / 100 : 1;
    const semitones = outlet.able ? mix.key - 12 * Math.log2(rate) : 0;
    if (outlet.shift(semitones)) player.setRate(rate);
  }

  // Keys

  listenToKeys({
    " ": toggle,
    ArrowLeft: ({ shiftKey }) => seek(player.position - (shiftKey ? SMALL_STEP : STEP)),
    ArrowRight: ({ shiftKey }) => seek(player.position + (shiftKey ? SMALL_STEP : STEP)),
    Home: () => seek(0),
    End: () => seek(player.duration),
    ArrowUp: () => turn(2),
    ArrowDown: () => turn(-2),
    "[": () => mark(0),
    "]": () => mark(1),
    l: toggleLoop,
    o: toggleOriginal,
    "?": () => $("keys").showModal(),
    digit: (number, { shiftKey }) => {
      strips[number - 1]?.querySelector(shiftKey ? ".solo" : ".mute").click();
    },
  });
  $("help").addEventListener("click", () => $("keys").showModal());

  function turn(by) {
    mix.master = Math.min(Math.max(mix.master + by, 0), 100);
    changed();
  }

  // Drawing

  function draw() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      if (!section.isConnected) return;
      const position = heard();
      const now = clock(position);
      if ($("position").textContent !== now) $("position").textContent = now;
      $("seek").value = position;
      // Not while it plays: screen readers would tell every second.
      const words = `${now} / ${clock(player.duration)}`;
      if (!player.playing) $("seek").setAttribute("aria-valuetext", words);
      board.draw(position);
      hold();
      meters.forEach((meter, at) => meter.show(player.level(names[at]).peak, player.playing));
      master.show(player.level("master").peak, player.playing);
      if (player.playing) draw();
    });
  }

  /** The time that is heard now: what is shifted comes out a little later. */
  function heard() {
    const late = player.playing ? outlet.latency * player.rate : 0;
    return Math.max(0, player.position - late);
  }

  /** Why nothing is heard, when it should. */
  function hold() {
    let words = "";
    if (player.failing) words = texts.failed;
    else if (player.waiting) {
      const edge = player.position * SAMPLE_RATE >= song().reach - 1;
      words = edge ? texts.edge : texts.loading;
    }
    section.classList.toggle("waiting", Boolean(words));
    if (!words && master.over) words = texts.clips;
    if (performance.now() - told < SAID) return;
    if (words !== said) $("hold").textContent = words;
    said = words;
  }

  /** Say something for a moment. */
  function tell(words) {
    $("hold").textContent = said = words;
    told = performance.now();
    setTimeout(draw, SAID);
  }
}
