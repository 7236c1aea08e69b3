// A TypeScript client of the API: generated from its description, then used to send, follow and
// fetch a song. tests/api/test_api_live.py runs this and reads what it writes.

/* eslint camelcase: ["error", { properties: "never" }] -- the API's own names */

import { openAsBlob } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { createClient as generate } from "@hey-api/openapi-ts";

const [description, folder, site, song] = process.argv.slice(2);

await generate({
  input: description,
  output: { path: folder, module: { extension: ".ts" } },
  logs: { level: "silent" },
});
const load = (name) => import(pathToFileURL(join(folder, name)));
const api = await load("index.ts");
const { client } = await load("client.gen.ts");
client.setConfig({ baseUrl: site, throwOnError: true });

const file = new File([await openAsBlob(song)], "Sent from TypeScript.wav");
const { data: sent } = await api.createSeparation({ body: { file, shifts: 1, split: true } });
client.setConfig({ auth: ({ scheme }) => (scheme === "bearer" ? sent.token : undefined) });
const path = { task_id: sent.task_id };

const heard = [];
const { stream } = await api.followSeparation({ path });
for await (const event of stream) heard.push(event);

const { data: task } = await api.getSeparation({ path });
const { data: stem } = await api.downloadStem({
  path: { ...path, stem_name: "vocals" },
  query: { format: "mp3", bitrate: 128, to: "0.5" },
});
const { data: listed } = await api.listJobs({ query: { status: ["completed"] } });
const { error } = await api.downloadStem({
  path: { ...path, stem_name: "trumpet" },
  throwOnError: false,
});
const { response } = await api.deleteSeparation({ path });

process.stdout.write(
  JSON.stringify({
    title: task.title,
    last: heard.at(-1),
    stem: [stem.type, Buffer.from(await stem.arrayBuffer()).toString("latin1", 0, 3)],
    listed: listed.items.map((item) => item.task_id === task.task_id),
    code: error.code,
    deleted: response.status,
  }),
);
