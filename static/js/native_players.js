// The native audio players of a song's stems: starting one pauses the others and continues at their
// position.

document.addEventListener(
  "play",
  (event) => {
    for (const other of document.querySelectorAll("audio")) {
      if (other === event.target || other.paused) continue;
      event.target.currentTime = other.currentTime;
      other.pause();
    }
  },
  true, // "play" does not bubble
);
