// Pitch shifting on the master bus, by Signalsmith Stretch (WebAssembly in an AudioWorklet). The
// library is fetched when a stretch is made for the first time, not with this module.

// Blocks of 160 ms keep bass notes and chords in tune better than the library's 120 ms do, at the
// same sharpness of hits. The work for a block is spread over its whole interval, so that no single
// quantum of the audio thread takes long; that costs one interval of latency.
const BLOCK = { blockMs: 160, intervalMs: 40, splitComputation: true };

// Shifted music comes out softer, the more so the further, and more so downwards: partials that lie
// close together lose their phase to each other. Fitted to three songs, which it brings within half
// a decibel of the unshifted sound.
const lossDb = (semitones) => 0.15 + (semitones > 0 ? 0.03 : -0.055) * semitones;
const makeUp = (semitones) => (semitones === 0 ? 1 : 10 ** (lossDb(semitones) / 20));

/** Whether pitch can be shifted here: not on plain http (no AudioWorklet), nor without WebAssembly. */
export function supported(context) {
  if (!context.audioWorklet) return false;
  try {
    new WebAssembly.Module(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0)); // the empty module
    return true;
  } catch {
    return false; // switched off in the browser, or forbidden by the content security policy
  }
}

/**
 * A stretch at rest: what goes into `input` comes out of `output` `latency` seconds later, at the
 * same speed, `setSemitones(n)` higher (any number, -24 to 24). Keep it for as long as the context
 * lives and lead the sound around it where no shift is wanted; `close()` is for good.
 */
export async function createStretch(context) {
  const { default: Signalsmith } = await import("../vendor/signalsmith-stretch/SignalsmithStretch.mjs");
  // Without this address the library makes a script of itself in a blob:, which the site forbids.
  Signalsmith.moduleUrl = new URL("../vendor/signalsmith-stretch/SignalsmithStretch.mjs", import.meta.url).href;
  const node = await Signalsmith(context, {
    numberOfInputs: 1,
    numberOfOutputs: 1,
    outputChannelCount: [2],
    channelCount: 2,
    channelCountMode: "explicit",
  });
  await node.configure(BLOCK);
  await node.start();
  const latency = await node.latency();

  // While nothing at all is connected the library would play its own, empty store: that cuts off what
  // it still holds and costs more than music does, where silence costs next to nothing.
  const silence = new ConstantSourceNode(context, { offset: 0 });
  silence.connect(node);
  silence.start();

  const output = new GainNode(context);
  node.connect(output);

  return {
    input: node,
    output,
    latency,
    /** Resolves when the audio thread has it; what comes out follows within a block. */
    async setSemitones(semitones) {
      await node.schedule({ active: true, semitones });
      output.gain.setTargetAtTime(makeUp(semitones), context.currentTime, BLOCK.intervalMs / 1000);
    },
    close() {
      silence.stop();
      node.stop();
      node.disconnect();
      output.disconnect();
    },
  };
}
