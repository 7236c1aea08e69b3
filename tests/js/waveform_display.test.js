import assert from "node:assert/strict";
import test from "node:test";

import { formatTime, tickSpacing } from "../../static/js/mixer/waveform_display.js";

test("times of an hour and more have hours", () => {
  assert.equal(formatTime(75.2), "1:15");
  assert.equal(formatTime(3599.9), "59:59");
  assert.equal(formatTime(3600), "1:00:00");
  assert.equal(formatTime(6605), "1:50:05");
});

test("times on the ruler of two hours do not run into each other", () => {
  for (const width of [280, 600, 1200]) {
    assert.ok((tickSpacing(7200, width) / 7200) * width >= 64, `${width} pixels`);
  }
});
