import assert from "node:assert/strict";
import test from "node:test";

import { listenToDownloadForm, offerRates } from "../../static/js/mixer/download_form.js";

/** Submit the form with an option of this data, and return what the page shows. */
function shownOnSubmit(dataset, isForm = true) {
  const handlers = {};
  const level = { textContent: "" };
  globalThis.document = {
    addEventListener: (kind, handler) => (handlers[kind] = handler),
    getElementById: () => level,
  };
  listenToDownloadForm(() => null, "It is being made.");
  const format = { selectedOptions: [{ dataset }] };
  handlers.submit({ target: { matches: () => isForm, elements: { format } } });
  delete globalThis.document;
  return level.textContent;
}

test("a format that is sent only once complete says that it is being made", () => {
  assert.equal(shownOnSubmit({ waits: "" }), "It is being made.");
});

test("other formats, and other forms, say nothing", () => {
  assert.equal(shownOnSubmit({}), "");
  assert.equal(shownOnSubmit({ waits: "" }, false), "");
});

test("the song's rate is offered where the format can have it", () => {
  const options = [{ value: "model" }, { value: "song" }];
  const rates = { options, value: "song" };
  const elements = { format: { selectedOptions: [{ dataset: {} }] } };
  elements["sample_rate"] = rates;
  offerRates({ elements });
  assert.deepEqual([rates.value, options[1].disabled], ["song", false]);
  elements.format.selectedOptions = [{ dataset: { modelRate: "" } }];
  offerRates({ elements });
  assert.deepEqual([rates.value, options[1].disabled], ["model", true]);
  delete elements.sample_rate;
  offerRates({ elements }); // a song at 44.1 kHz
});
