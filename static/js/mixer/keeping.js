// Where a song's mix is kept as text between visits: in the browser, and in the address of a link.

const key = (song) => `mix:${song}`;

/** The mix of the page's address, else the one of the last visit, else "". */
export function keptMix(song) {
  const linked = new URLSearchParams(location.hash.slice(1)).get("mix");
  if (linked !== null) store(song, linked);
  try {
    return linked ?? localStorage.getItem(key(song)) ?? "";
  } catch {
    return ""; // storage is blocked: nothing is kept, all else works
  }
}

/** Keep a mix; the address speaks of another one no longer. */
export function keepMix(song, text) {
  store(song, text);
  if (location.hash) history.replaceState(null, "", location.pathname);
}

/** Put a mix into the page's address. */
export function linkMix(text) {
  history.replaceState(null, "", `#mix=${text}`);
}

function store(song, text) {
  try {
    localStorage.setItem(key(song), text);
  } catch {
    // likewise
  }
}
