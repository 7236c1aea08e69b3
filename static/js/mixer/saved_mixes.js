// Saved mixes: a song's mix as text (see mix.js) in the browser's storage, and in the address that
// "Copy a link to this mix" copies.

const storageKey = (song) => `mix:${song}`;

/** The mix in the page's address, or the one of the last visit, or "". */
export function savedMix(song) {
  const linked = new URLSearchParams(location.hash.slice(1)).get("mix");
  if (linked !== null) store(song, linked);
  try {
    return linked ?? localStorage.getItem(storageKey(song)) ?? "";
  } catch {
    return ""; // storage is blocked: nothing is saved, all else works
  }
}

/** Save a mix, and remove the one in the page's address: it is no longer what is heard. */
export function saveMix(song, text) {
  store(song, text);
  if (location.hash) history.replaceState(null, "", location.pathname);
}

/** Put a mix into the page's address. */
export function putMixInAddress(text) {
  history.replaceState(null, "", `#mix=${text}`);
}

function store(song, text) {
  try {
    localStorage.setItem(storageKey(song), text);
  } catch {
    // Storage is blocked or full: nothing is saved.
  }
}
