// The page that describes the API and lets you try it (Swagger UI). Who tries it without a token goes
// on with the one that the answer to their song holds, and with that song.

/* global SwaggerUIBundle */

const root = document.querySelector("#swagger-ui");
const darkness = matchMedia("(prefers-color-scheme: dark)");
const SEND = "/api/separate";

function followDarkness() {
  document.documentElement.classList.toggle("dark-mode", darkness.matches);
}

function addCsrfToken(request) {
  request.headers["X-CSRFToken"] = root.dataset.csrfToken;
  return request;
}

/** Fill in the song that was just sent wherever one is asked for. */
function fillIn(ui, task) {
  if (task.token) ui.preauthorizeApiKey("Token", task.token);
  const paths = ui.specSelectors.specJson().get("paths").toJS();
  for (const [path, operations] of Object.entries(paths)) {
    if (!path.includes("{task_id}")) continue;
    for (const method of Object.keys(operations)) {
      ui.specActions.changeParam([path, method], "task_id", "path", task.task_id, false);
    }
  }
}

followDarkness();
darkness.addEventListener("change", followDarkness);
const page = SwaggerUIBundle({
  ...JSON.parse(root.dataset.settings),
  domNode: root,
  presets: [SwaggerUIBundle.presets.apis],
  requestInterceptor: addCsrfToken,
  responseInterceptor(response) {
    if (response.ok && new URL(response.url).pathname === SEND) fillIn(page, response.body);
    return response;
  },
});
