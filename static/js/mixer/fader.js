// The fader law: what a fader's position multiplies a level with. The server has the same law, in
// Python's gain_laws; a test compares the two at every position.

export const UNITY = 80; // the position that leaves a level as it is
export const FADER_RANGE = [0, 100];

/** The gain of a fader at `volume`: cubic, silence at 0, 1 at UNITY, +5.8 dB at 100. */
export function gainOf(volume) {
  return (volume / UNITY) ** 3;
}
