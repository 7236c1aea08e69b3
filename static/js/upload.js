// Sends each chosen or dropped song by itself, with its own progress bar, and puts the card that the
// server answers with on top of the list. Without this module the form works as any form does.

const form = document.getElementById("upload");
const picker = document.getElementById("file");
const drop = document.getElementById("drop");
const errors = document.getElementById("errors");
const transfers = document.getElementById("transfers");
const songs = document.getElementById("songs");
const texts = form.dataset;

form.classList.add("live");
picker.required = false; // songs leave the field as soon as they are chosen
form.querySelector(".actions").hidden = true;

picker.addEventListener("change", () => {
  sendAll([...picker.files]);
  picker.value = "";
});
form.addEventListener("submit", (event) => event.preventDefault());

for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  drop.addEventListener(name, () => drop.classList.remove("over"));
}
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  sendAll([...event.dataTransfer.files]);
});
// A song that misses the field must not replace the page.
for (const name of ["dragover", "drop"]) {
  window.addEventListener(name, (event) => event.preventDefault());
}

async function sendAll(files) {
  errors.replaceChildren();
  const tooLarge = (file) => file.size > Number(texts.maxBytes);
  for (const file of files.filter(tooLarge)) complain(file.name, texts.tooLarge);
  const waiting = files.filter((file) => !tooLarge(file)).map((file) => [file, transferRow(file.name)]);
  for (const [file, row] of waiting) await send(file, row);
}

/** Send one song; resolves when the server has answered, whatever it said. */
function send(file, row) {
  const body = new FormData(form);
  body.delete("file");
  body.append("file", file);
  const request = new XMLHttpRequest();
  return new Promise((resolve) => {
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) row.show(event.loaded / event.total);
    });
    request.upload.addEventListener("load", () => row.checking());
    request.addEventListener("loadend", () => {
      row.remove();
      receive(request, file.name);
      resolve();
    });
    request.open("POST", form.action);
    request.setRequestHeader("HX-Request", "true");
    request.send(body);
  });
}

function receive(request, name) {
  const elsewhere = request.getResponseHeader("HX-Redirect");
  if (elsewhere) {
    location.assign(elsewhere); // to the log-in, where the session is over
    return;
  }
  const type = request.getResponseHeader("Content-Type") ?? "";
  const answer = new DOMParser().parseFromString(request.responseText ?? "", "text/html");
  const cards = answer.querySelectorAll("li.card");
  const complaints = answer.querySelectorAll("p.error");
  for (const card of cards) {
    songs.prepend(card);
    window.htmx.process(card);
  }
  errors.append(...complaints);
  if (!type.startsWith("text/html") || cards.length + complaints.length === 0) {
    complain(name, texts.broken);
  }
}

function complain(name, text) {
  const line = document.createElement("p");
  line.className = "error";
  const title = document.createElement("strong");
  title.textContent = name;
  line.append(title, " ", text);
  errors.append(line);
}

function transferRow(name) {
  const row = document.createElement("p");
  row.className = "transfer";
  const label = document.createElement("span");
  label.textContent = `${texts.sending}: ${name}`;
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", label.textContent);
  row.append(label, bar);
  transfers.append(row);
  return {
    show: (share) => (bar.value = share),
    checking: () => {
      label.textContent = `${texts.checking}: ${name}`;
      bar.removeAttribute("value");
    },
    remove: () => row.remove(),
  };
}
