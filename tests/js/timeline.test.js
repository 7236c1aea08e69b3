import assert from "node:assert/strict";
import test from "node:test";

import { GUARD, Timeline } from "../../static/js/mixer/timeline.js";

const CHUNK = 1000;
const RATE = 1000; // frames are milliseconds

function timeline(frames, loop = null) {
  const made = new Timeline(frames, CHUNK, RATE);
  if (loop) made.setLoop(...loop);
  return made;
}

/** The frames of the song that are played from `from` on; checks what each of them is read from. */
function played(line, from, most = Infinity) {
  const frames = [];
  let head = from;
  for (let piece; (piece = line.pieceAt(head)) && frames.length < most; head = line.after(piece)) {
    assert.ok(piece.frames > 0);
    for (let step = 0; step < piece.frames; step += 1) {
      const period = piece.to - piece.from;
      const frame = piece.from + (piece.chunk === null ? step % period : step);
      if (piece.chunk !== null) {
        const index = piece.offset + step - GUARD;
        assert.equal(piece.chunk * CHUNK + index, frame, "read from where the frame lies");
        assert.ok(index >= -GUARD && index < CHUNK);
        if (index < 0) assert.ok(piece.chunks.includes(piece.chunk - 1), "the guard needs it");
      }
      assert.ok(piece.chunk === null || piece.chunks.includes(piece.chunk));
      frames.push(frame);
    }
  }
  return frames.slice(0, most);
}

const run = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

test("every frame is played once and in order, wherever it starts", () => {
  for (const frames of [1, 999, 1000, 1001, 2000, 3500]) {
    for (const from of [0, 1, 500, 998, 999, 1000, 1001, 1999].filter((each) => each < frames)) {
      assert.deepEqual(played(timeline(frames), from), run(from, frames), `${from} of ${frames}`);
    }
  }
  assert.equal(timeline(3500).pieceAt(3500), null);
});

test("a border is crossed on the guard, so that nothing is read past a buffer's end", () => {
  const first = timeline(3500).pieceAt(0);
  assert.deepEqual([first.to, first.chunk], [999, 0]);
  const second = timeline(3500).pieceAt(999);
  assert.deepEqual([second.chunk, second.offset, second.chunks], [1, 0, [0, 1]]);
});

test("a loop turns at its very end, again and again", () => {
  for (const [from, to] of [
    [200, 1700],
    [1000, 2000],
    [999, 2001],
    [0, 3500],
    [1001, 1200],
    [950, 1050],
    [999, 1050],
    [1500, 2000],
    [3400, 3500],
  ]) {
    const line = timeline(3500, [from / RATE, to / RATE]);
    const wanted = [...run(from, to), ...run(from, to), ...run(from, to)];
    assert.deepEqual(played(line, from, wanted.length), wanted, `${from}–${to}`);
    const into = Math.max(0, from - 10);
    assert.deepEqual(played(line, into, to - into + 5), [...run(into, to), ...run(from, from + 5)]);
  }
});

test("who is behind the loop plays on to the end", () => {
  assert.deepEqual(played(timeline(3500, [0.5, 1.5]), 1500), run(1500, 3500));
});

test("a loop is put in order, kept within the song and made long enough", () => {
  const loop = (...ends) => timeline(3500, ends).loop;
  assert.deepEqual(loop(2, 1), { from: 1000, to: 2000 });
  assert.deepEqual(loop(-1, 99), { from: 0, to: 3500 });
  assert.deepEqual(loop(1, 1), { from: 1000, to: 1050 });
  assert.deepEqual(loop(3.5, 3.5), { from: 3450, to: 3500 });
  const line = timeline(3500, [1, 3.4]);
  line.setFrames(3000);
  assert.deepEqual(line.loop, { from: 1000, to: 3000 });
});

test("short loops go round many times in one piece", () => {
  const piece = timeline(3500, [0.95, 1.05]).pieceAt(950);
  assert.deepEqual([piece.frames, piece.chunk, piece.chunks], [1000, null, [0, 1]]);
});

test("only whole chunks of what is finished are played", () => {
  const line = timeline(3500);
  line.reach = 0;
  assert.equal(line.pieceAt(0), null);
  line.reach = 1999;
  assert.equal(line.available, 1000);
  assert.deepEqual(played(line, 0), run(0, 999)); // the last frame is the next piece's guard
  assert.equal(line.pieceAt(999), null);
  line.reach = 2000;
  assert.deepEqual(played(line, 999), run(999, 1999));
  line.reach = 3500;
  assert.deepEqual(played(line, 1999), run(1999, 3500));
  line.setLoop(0.5, 1);
  line.reach = 1000;
  assert.deepEqual(played(line, 500, 1000), [...run(500, 1000), ...run(500, 1000)]);
  line.setLoop(0.5, 1.5);
  assert.deepEqual(played(line, 500), run(500, 999), "a loop's end beyond the reach is waited for");
});

test("the chunk being played comes first, then what follows, then what was", () => {
  const line = timeline(100_000);
  assert.deepEqual(line.chunksAround(50_500, 10), [50, 51, 52, 53, 54, 55, 49, 48, 47, 46]);
  assert.deepEqual(line.chunksAround(50_500, 10, 2), [50, 51, 49, 48, 47, 46]);
  assert.deepEqual(line.chunksAround(0, 10, 3), [0, 1, 2]);
  assert.deepEqual(line.chunksAround(99_999, 10), [99, 98, 97, 96, 95]);
  assert.deepEqual(line.chunksAround(100_000, 10, 1), [99, 98, 97, 96, 95]);
});

test("a loop's start is kept, and what is behind its end is not wanted", () => {
  const line = timeline(100_000, [20, 60]);
  assert.deepEqual(line.chunksAround(50_500, 12), [50, 51, 20, 21, 52, 53, 54, 55, 49, 48, 47, 46]);
  assert.deepEqual(line.chunksAround(58_500, 12), [58, 59, 20, 21, 22, 23, 24, 25, 57, 56, 55, 54]);
  assert.ok(!timeline(100_000, [1, 2]).chunksAround(1000, 12).includes(2));
  const short = timeline(100_000, [1.99, 2.01]);
  assert.deepEqual(short.chunksAround(1995, 12).slice(0, 2), [1, 2]);
});

test("no more is ever wanted than fits, nor what is not finished", () => {
  for (const loop of [null, [1, 3], [20, 60], [98, 100]]) {
    const line = timeline(99_500, loop);
    line.reach = 70_500;
    for (let frame = 0; frame <= 99_500; frame += 250) {
      for (const capacity of [2, 8, 21]) {
        const wanted = line.chunksAround(frame, capacity);
        assert.ok(wanted.length <= capacity && new Set(wanted).size === wanted.length);
        assert.ok(wanted.every((chunk) => chunk >= 0 && chunk < 70));
      }
    }
  }
});
