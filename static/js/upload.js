// The upload form: sends each chosen or dropped song in a request of its own, with a progress bar,
// and puts the card from the answer on top of the list. Without this module it is an ordinary form.

const form = document.getElementById("upload");
const picker = document.getElementById("file");
const drop = document.getElementById("drop");
const errors = document.getElementById("errors");
const transfers = document.getElementById("transfers");
const songs = document.getElementById("songs");
const texts = form.dataset;

form.classList.add("live");
picker.required = false; // the field is emptied as soon as songs are chosen
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
// The browser would open a song that is dropped beside the field, in place of the page.
for (const name of ["dragover", "drop"]) {
  window.addEventListener(name, (event) => event.preventDefault());
}

async function sendAll(files) {
  errors.replaceChildren();
  const tooLarge = (file) => file.size > Number(texts.maxBytes);
  for (const file of files.filter(tooLarge)) showError(file.name, texts.tooLarge);
  const accepted = files.filter((file) => !tooLarge(file));
  const queue = accepted.map((file) => [file, transferRow(file.name)]);
  for (const [file, row] of queue) await send(file, row);
}

/** Send one song; resolves when the request has ended, also when it failed. */
function send(file, row) {
  const body = new FormData(form);
  body.delete("file");
  body.append("file", file);
  const request = new XMLHttpRequest();
  return new Promise((resolve) => {
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) row.showSent(event.loaded / event.total);
    });
    request.upload.addEventListener("load", () => row.showChecking());
    request.addEventListener("loadend", () => {
      row.remove();
      showAnswer(request, file.name);
      resolve();
    });
    request.open("POST", form.action);
    request.setRequestHeader("HX-Request", "true");
    request.send(body);
  });
}

function showAnswer(request, name) {
  const redirect = request.getResponseHeader("HX-Redirect");
  if (redirect) {
    location.assign(redirect); // to the log-in page: the session has ended
    return;
  }
  const type = request.getResponseHeader("Content-Type") ?? "";
  const answer = new DOMParser().parseFromString(request.responseText ?? "", "text/html");
  const cards = answer.querySelectorAll("li.card");
  const refusals = answer.querySelectorAll("p.error");
  for (const card of cards) {
    songs.prepend(card);
    window.htmx.process(card);
  }
  errors.append(...refusals);
  if (!type.startsWith("text/html") || cards.length + refusals.length === 0) {
    showError(name, texts.broken);
  }
}

function showError(name, text) {
  const line = document.createElement("p");
  line.className = "error";
  const title = document.createElement("strong");
  title.textContent = name;
  line.append(title, " ", text);
  errors.append(line);
}

/** A line with a progress bar for a song that is being sent. */
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
    showSent: (fraction) => (bar.value = fraction),
    showChecking: () => {
      label.textContent = `${texts.checking}: ${name}`;
      bar.removeAttribute("value");
    },
    remove: () => row.remove(),
  };
}
