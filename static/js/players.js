// Starting one stem stops the others, and goes on where they were.

document.addEventListener(
  "play",
  (event) => {
    for (const other of document.querySelectorAll("audio")) {
      if (other === event.target || other.paused) continue;
      event.target.currentTime = other.currentTime;
      other.pause();
    }
  },
  true,
);
