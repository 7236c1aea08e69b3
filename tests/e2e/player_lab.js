// What test_player.py calls in the page: a player on a real or an offline context, and its output.

import { chunkLoader } from "/js/mixer/chunk_store.js";
import { parseMix } from "/js/mixer/mix.js";
import { Player } from "/js/mixer/player.js";

const RATE = 44100;

function makePlayer(context, song, options = {}) {
  const { stems, frames } = song;
  const load = chunkLoader((stem, index) => `/songs/${song.name}/${stem}/${index}`);
  const made = new Player({ context, stems, frames, load, ...options });
  made.output.connect(context.destination);
  return made;
}

/** Resolves when `condition` holds, which is checked at each event of the player. */
function until(player, condition) {
  return new Promise((resolve) => {
    const look = () => {
      if (!condition()) return;
      for (const type of ["change", "progress", "failed"]) player.removeEventListener(type, look);
      resolve();
    };
    for (const type of ["change", "progress", "failed"]) player.addEventListener(type, look);
    look();
  });
}

/** Resolves when `condition` holds, which is checked every 5 ms. */
async function eventually(condition) {
  while (!condition()) await new Promise((resolve) => void setTimeout(resolve, 5));
}

/**
 * Render a song from the start and hand the samples to the server.
 *
 * @param {object} how seconds; reach in frames; mix; rate; loop; steps [[time, method, …arguments], …]
 */
async function render(song, how) {
  const context = new OfflineAudioContext(2, Math.round(how.seconds * RATE), RATE);
  const made = makePlayer(context, song, { ahead: how.seconds, reach: how.reach });
  made.setMix(parseMix(how.mix ?? "", song.stems));
  if (how.rate) made.setRate(how.rate);
  if (how.loop) made.setLoop(...how.loop);
  const needed = Math.min(how.loop?.[1] ?? Infinity, (how.reach ?? song.frames) / RATE);
  made.play();
  await until(made, () => made.buffered[0]?.[0] === 0 && made.buffered[0][1] >= needed);
  const positions = [];
  for (const [time, method, ...values] of how.steps ?? []) {
    context.suspend(time).then(async () => {
      positions.push(made.position);
      await made[method](...values);
      context.resume();
    });
  }
  const rendered = await context.startRendering();
  const samples = new Float32Array(2 * rendered.length);
  samples.set(rendered.getChannelData(0));
  samples.set(rendered.getChannelData(1), rendered.length);
  await fetch("/take", { method: "POST", body: samples });
  const position = made.position;
  made.close();
  return { position, positions };
}

/** A player on the real clock, as `lab.live`. */
async function live(song, options) {
  window.live?.player.close();
  await window.live?.context.close();
  const context = new AudioContext({ sampleRate: RATE });
  const made = makePlayer(context, song, options);
  const events = [];
  made.addEventListener("failed", ({ detail }) => events.push(detail));
  window.live = { context, player: made, failed: events };
}

Object.assign(window, { render, startLive: live, eventually, parseMix });
