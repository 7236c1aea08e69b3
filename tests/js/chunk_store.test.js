import assert from "node:assert/strict";
import test from "node:test";

import {
  bytesOf,
  ChunkStore,
  decodeChunk,
  repeatedLoop,
} from "../../static/js/mixer/chunk_store.js";
import { capacityOf } from "../../static/js/mixer/player.js";
import { Timeline } from "../../static/js/mixer/timeline.js";

const STEMS = ["drums", "bass"];
const CHUNK = 8;
const FAST = 0.0001; // of the real waits

/** An AudioBuffer in small. */
class Buffer {
  constructor(length, fill = () => 0) {
    this.length = length;
    this.numberOfChannels = 2;
    this.sampleRate = 1000;
    const samples = (channel) => Float32Array.from({ length }, (_, frame) => fill(frame, channel));
    this.channels = [samples(0), samples(1)];
  }

  getChannelData(channel) {
    return this.channels[channel];
  }
}

/** A chunk whose samples say which frame of the song they are, behind an empty guard. */
const chunk = (index) =>
  new Buffer(CHUNK + 1, (frame) => (frame === 0 ? -1 : index * CHUNK + frame - 1));

/** A store that ends with its test: its timers would keep the run alive. */
function opened(t, ...options) {
  const store = new ChunkStore(...options);
  t.after(() => store.close());
  return store;
}

/** Loads that the test answers, in any order. */
class Loads {
  asked = [];

  load = (stem, index, signal) =>
    new Promise((resolve, reject) => {
      const ask = { stem, index, signal, resolve: () => resolve(chunk(index)), reject };
      signal.addEventListener("abort", () => reject(new Error("aborted")));
      this.asked.push(ask);
    });

  get open() {
    return this.asked.filter(({ signal, done }) => !signal.aborted && !done);
  }

  names() {
    return this.open.map(({ stem, index }) => `${index}/${stem}`);
  }

  async answer(how = (ask) => ask.resolve()) {
    for (const ask of this.open) {
      ask.done = true;
      how(ask);
    }
    await new Promise(setImmediate);
  }

  async answerAll() {
    while (this.open.length) await this.answer();
  }
}

const event = (target, type) =>
  new Promise((resolve) => {
    target.addEventListener(type, resolve, { once: true });
  });

test("the most urgent chunk is loaded first, of all stems, and not everything at once", async (t) => {
  const loads = new Loads();
  const store = opened(t, loads.load, 20);
  store.want([7, 8, 9, 10, 11, 12], STEMS);
  assert.equal(loads.open.length, 8);
  assert.deepEqual(loads.names().slice(0, 4), ["7/drums", "7/bass", "8/drums", "8/bass"]);
  await loads.answer();
  assert.ok(store.holds([7, 8, 9, 10], STEMS) && !store.holds([11], STEMS));
  assert.deepEqual(loads.names(), ["11/drums", "11/bass", "12/drums", "12/bass"]);
});

test("a jump gives up what is no longer needed and keeps what is", async (t) => {
  const loads = new Loads();
  const store = opened(t, loads.load, 20);
  store.want([1, 2, 3, 4], STEMS);
  store.want([4, 50], STEMS);
  assert.deepEqual(loads.names(), ["4/drums", "4/bass", "50/drums", "50/bass"]);
  assert.equal(loads.asked.length, 8 + 2, "what goes on is not asked for twice");
  await loads.answerAll();
  assert.deepEqual(store.indexes(STEMS), [4, 50]);
});

test("an answer that comes in spite of its abort is not kept", async (t) => {
  const late = [];
  const load = (stem, index) =>
    new Promise((resolve) => {
      late.push(() => resolve(chunk(index)));
    });
  const store = opened(t, load, 20);
  store.want([1], ["drums"]);
  store.want([2], ["drums"]);
  late[0]();
  await new Promise(setImmediate);
  assert.equal(store.buffer("drums", 1), undefined);
});

test("no more than its capacity is ever held, and the oldest goes first", async (t) => {
  const loads = new Loads();
  const store = opened(t, loads.load, 4);
  for (const wanted of [[0, 1], [2, 3], [4], [90, 91, 92, 93], [3, 4, 5, 6, 7, 8, 9]]) {
    store.want(wanted, STEMS);
    await loads.answerAll();
    assert.ok(store.bytes <= 4 * STEMS.length * bytesOf(chunk(0)));
    assert.ok(store.holds(wanted.slice(0, 4), STEMS));
    if (wanted[0] === 4) assert.deepEqual(store.indexes(STEMS), [1, 2, 3, 4]);
  }
  store.close();
  assert.equal(store.bytes, 0);
});

test("a stem that joins later is loaded for what is there", async (t) => {
  const loads = new Loads();
  const store = opened(t, loads.load, 4);
  store.want([0, 1], STEMS);
  await loads.answerAll();
  store.want([0, 1], [...STEMS, "mixture"]);
  assert.deepEqual(loads.names(), ["0/mixture", "1/mixture"]);
  await loads.answerAll();
  assert.ok(store.holds([0, 1], ["mixture"]));
});

test("a chunk that fails is tried again and again, is told once, and is forgiven", async (t) => {
  let failing = true;
  let tries = 0;
  const store = opened(
    t,
    async (stem, index) => {
      tries += 1;
      if (failing) throw new Error("404");
      return chunk(index);
    },
    4,
    FAST,
  );
  const told = [];
  store.addEventListener("failed", ({ detail }) => told.push(detail));
  store.want([3], ["drums"]);
  await event(store, "failed");
  assert.ok(store.failing);
  assert.deepEqual(
    [told[0].stem, told[0].index, told[0].error.message, tries],
    ["drums", 3, "404", 3],
  );
  failing = false;
  await event(store, "loaded");
  assert.ok(!store.failing && store.holds([3], ["drums"]));
  assert.equal(told.length, 1);
});

test("what failed waits its time, unless it is asked to hurry", async (t) => {
  let tries = 0;
  const store = opened(
    t,
    async () => {
      tries += 1;
      throw new Error("offline");
    },
    4,
    1000,
  );
  store.want([3], ["drums"]);
  await new Promise(setImmediate);
  store.want([3], ["drums"]);
  assert.equal(tries, 1);
  store.retry();
  assert.equal(tries, 2);
  await new Promise(setImmediate);
});

test("neighbours are joined by their guard, whichever comes first", async (t) => {
  for (const order of [
    [4, 5, 6],
    [6, 5, 4],
    [4, 6, 5],
  ]) {
    const loads = new Loads();
    const store = opened(t, loads.load, 4);
    store.want(order, ["drums"]);
    await loads.answerAll();
    const guard = (index) => store.buffer("drums", index).getChannelData(1)[0];
    assert.deepEqual([guard(4), guard(5), guard(6)], [-1, 5 * CHUNK - 1, 6 * CHUNK - 1]);
  }
});

test("samples are scaled back by their exponent, behind the guard", async () => {
  const context = {
    decodeAudioData: async () => new Buffer(3, (frame, channel) => (frame + 1) / 8 - channel),
    createBuffer: (channels, frames) => new Buffer(frames),
  };
  const buffer = await decodeChunk(context, { data: null, exponent: -2 });
  assert.deepEqual([...buffer.getChannelData(0)], [0, 0.5, 1, 1.5]);
  assert.deepEqual([...buffer.getChannelData(1)], [0, -3.5, -3, -2.5]);
});

test("rounds of a short loop over a border follow each other to the frame", () => {
  const line = new Timeline(40, CHUNK, 100);
  line.setLoop(0.13, 0.19); // frames 13 … 18, in chunks 1 and 2
  const piece = line.pieceAt(13);
  const context = { createBuffer: (channels, frames) => new Buffer(frames) };
  const buffer = repeatedLoop(context, piece, CHUNK, chunk);
  const once = [13, 14, 15, 16, 17, 18];
  assert.equal(piece.frames, 12);
  assert.deepEqual([...buffer.getChannelData(1)], [...once, ...once, 13]);
});

test("a budget holds the same seconds for few stems and for many, never more bytes", () => {
  for (const lanes of [2, 3, 5, 7]) {
    const bytes = capacityOf(80e6, lanes, 65536) * lanes * 65537 * 8;
    assert.ok(bytes <= 80e6 && bytes > 70e6);
  }
  assert.equal(capacityOf(1, 7, 65536), 8);
});
