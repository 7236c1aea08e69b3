import assert from "node:assert/strict";
import test from "node:test";

import { gainOf } from "../../static/js/mixer/fader.js";
import {
  audibleStems,
  mixLoudness,
  mixText,
  neutralMix,
  originalGain,
  parseMix,
  stemGains,
} from "../../static/js/mixer/mix.js";

const NAMES = ["drums", "bass", "other", "vocals"];

test("the fader is cubic: silence, unity at 80, 5.8 dB above", () => {
  assert.equal(gainOf(0), 0);
  assert.equal(gainOf(80), 1);
  assert.ok(Math.abs(20 * Math.log10(gainOf(100)) - 5.81) < 0.01);
  assert.ok(Math.abs(20 * Math.log10(gainOf(40)) + 18.06) < 0.01);
});

test("a text says what it says and leaves the rest as usual", () => {
  const state = parseMix("vocals:50:-20:ms,bass:0:100,master:70,speed:150,key:-12", NAMES);
  assert.deepEqual(state.stems.vocals, { volume: 50, pan: -20, mute: true, solo: true });
  assert.deepEqual(state.stems.bass, { volume: 0, pan: 100, mute: false, solo: false });
  assert.deepEqual(state.stems.drums, neutralMix(NAMES).stems.drums);
  assert.deepEqual([state.master, state.speed, state.key], [70, 150, -12]);
});

test("what a text cannot mean is passed over", () => {
  const wrong = [
    "",
    ",",
    "flute:50:0",
    "drums",
    "drums:50",
    "drums:101:0",
    "drums:-1:0",
    "drums:5.5:0",
    "drums:+5:0",
    "drums: 5:0",
    "drums:٥:0",
    "drums:1e1:0",
    "drums:50:101",
    "drums:50:0:",
    "drums:50:0:x",
    "drums:50:0:mm",
    "drums:50:0:m:s",
    "master:101",
    "master:50:0",
    "master",
    "speed:49",
    "speed:151",
    "key:13",
    "stems:1",
    "__proto__:1",
    "constructor:1:1",
  ];
  for (const text of wrong) assert.deepEqual(parseMix(text, NAMES), neutralMix(NAMES), text);
  assert.equal(parseMix("flute:1:2,drums:50:0,drums:x", NAMES).stems.drums.volume, 50);
});

test("a mix survives being written and read", () => {
  for (const text of ["", "drums:79:0", "drums:80:-1,vocals:100:100:ms,master:0,speed:50,key:12"]) {
    assert.equal(mixText(parseMix(text, NAMES)), text);
  }
  assert.equal(mixText(parseMix("drums:80:-0:s", NAMES)), "drums:80:0:s");
});

test("several solos are heard together, and a muted solo is not", () => {
  assert.deepEqual(audibleStems(neutralMix(NAMES).stems), NAMES);
  assert.deepEqual(audibleStems(parseMix("bass:80:0:m", NAMES).stems), [
    "drums",
    "other",
    "vocals",
  ]);
  const soloed = parseMix("bass:80:0:s,drums:80:0:s,vocals:80:0:ms", NAMES);
  assert.deepEqual(audibleStems(soloed.stems), ["drums", "bass"]);
  assert.deepEqual(stemGains(soloed), { drums: 1, bass: 1, other: 0, vocals: 0 });
});

test("loudness adds up by power, of what is heard", () => {
  const loudness = { drums: -20, bass: -20, other: -Infinity, vocals: -14, mixture: -12 };
  const near = (value, wanted) => assert.ok(Math.abs(value - wanted) < 0.01, `${value}`);
  near(mixLoudness(parseMix("vocals:80:0:m", NAMES), loudness), -16.99);
  near(mixLoudness(parseMix("drums:40:0:s", NAMES), loudness), -38.06);
  near(mixLoudness(parseMix("vocals:80:0:m,master:10", NAMES), loudness), -16.99);
  assert.equal(mixLoudness(parseMix("other:80:0:s", NAMES), loudness), -Infinity);
});

test("the original is played as loud as the mix, short of clipping", () => {
  const loudness = { drums: -20, mixture: -14 };
  const gain = (text, ...more) => originalGain(parseMix(text, ["drums"]), ...more);
  assert.ok(Math.abs(gain("", loudness) - 10 ** (-6 / 20)) < 1e-9);
  assert.ok(Math.abs(gain("drums:100:0", { drums: -10, mixture: -14 }, 0.8) - 1.25) < 1e-9);
  const loud = gain("master:100", { drums: -10, mixture: -14 }, 0.8);
  assert.ok(Math.abs(loud * 0.8 * gainOf(100) - 1) < 1e-9);
  assert.equal(gain("drums:80:0:m", loudness), 1, "silence compares with nothing");
  assert.equal(gain("", { drums: -20 }), 1, "nor does what is not known");
});
