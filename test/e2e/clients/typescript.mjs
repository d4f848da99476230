// A client on the TypeScript SDK: lists, calls, follows progress, answers a question and cancels. Arguments: folder of the SDK,
// URL, and the prefixes of the Python server and of server-everything. It ends with 0 when everything was as it should be.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const [sdk, url, weather, everything] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(`${sdk}/dist/esm/${file}.js`).href);
const { Client } = await load("client/index");
const { StreamableHTTPClientTransport } = await load("client/streamableHttp");
const { ElicitRequestSchema } = await load("types");

setTimeout(() => {
  console.error("not done within a minute");
  process.exit(1);
}, 60_000).unref();

const client = new Client({ name: "e2e", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
  assert.match(params.message, /^\[.+\] How many days in Rome\?$/);
  return { action: "accept", content: { days: 3 } };
});
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
assert.equal(client.getServerVersion().name, "Kuadrant MCP Gateway");

const call = async (name, args, options) => {
  const result = await client.callTool({ name, arguments: args }, undefined, options);
  return result.content[0].text;
};

const names = (await client.listTools()).tools.map((tool) => tool.name);
assert.ok(names.includes(`${weather}add`) && names.includes(`${everything}echo`), names.join());
assert.equal(await call(`${weather}add`, { a: 19, b: 23 }), "42");
assert.equal(await call(`${everything}echo`, { message: "hi" }), "Echo: hi");

for (const [tool, args] of [
  [`${weather}slow_echo`, { text: "x", seconds: 0.3, steps: 3 }],
  [`${everything}trigger-long-running-operation`, { duration: 0.3, steps: 3 }],
]) {
  const seen = [];
  await call(tool, args, { onprogress: ({ progress }) => seen.push(progress) });
  assert.equal(seen.at(-1), 3, seen.join());
}

assert.equal(await call(`${weather}plan_trip`, { city: "Rome" }), "3 days in Rome");

const before = await call(`${weather}interrupted`, {});
const abort = new AbortController();
const never = call(
  `${weather}slow_echo`,
  { text: "never", seconds: 60, steps: 600 },
  { signal: abort.signal, onprogress: () => abort.abort("changed my mind") },
);
await assert.rejects(never);
while ((await call(`${weather}interrupted`, {})) === before) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
await client.close();
console.log("typescript: everything was as it should be");
