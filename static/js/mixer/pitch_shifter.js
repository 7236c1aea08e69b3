// A pitch shifter for the master bus: Signalsmith Stretch (WebAssembly in an AudioWorklet).
// `pitch_output.js` loads it when it is first needed.

// Blocks of 160 ms keep bass notes and chords in tune better than the library's 120 ms do, at the
// same sharpness of transients. The work for a block is spread over its whole interval, so that no
// single render quantum of the audio thread takes long; that costs one interval of latency.
const BLOCK = { blockMs: 160, intervalMs: 40, splitComputation: true };

// Shifted music loses level: more with larger shifts, most downwards, as partials that lie close
// together lose their phase relation. Fitted to three songs, whose level it keeps within 0.5 dB.
const lossDb = (semitones) => 0.15 + (semitones > 0 ? 0.03 : -0.055) * semitones;
const makeUpGain = (semitones) => (semitones === 0 ? 1 : 10 ** (lossDb(semitones) / 20));

/**
 * A pitch shifter: sound from `input` leaves `output` `latency` seconds later, at the same speed
 * and `setSemitones(n)` higher (-24 to 24, fractions too). Keep it as long as the context, and
 * bypass it where no shift is wanted. `close()` is final.
 */
export async function createPitchShifter(context) {
  const { default: Signalsmith } =
    await import("../vendor/signalsmith-stretch/SignalsmithStretch.mjs");
  // Without this address the library loads its worklet from a blob:, which the site's CSP forbids.
  Signalsmith.moduleUrl = new URL(
    "../vendor/signalsmith-stretch/SignalsmithStretch.mjs",
    import.meta.url,
  ).href;
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

  // With no input the library plays its own, empty buffer: that cuts off its tail and takes more
  // CPU time than music. Silence as an input takes next to none.
  const silence = new ConstantSourceNode(context, { offset: 0 });
  silence.connect(node);
  silence.start();

  const output = new GainNode(context);
  node.connect(output);

  return {
    input: node,
    output,
    latency,
    /** Resolves when the audio thread has the value; the output follows within a block. */
    async setSemitones(semitones) {
      await node.schedule({ active: true, semitones });
      output.gain.setTargetAtTime(
        makeUpGain(semitones),
        context.currentTime,
        BLOCK.intervalMs / 1000,
      );
    },
    close() {
      silence.stop();
      node.stop();
      node.disconnect();
      output.disconnect();
    },
  };
}
