// Drives every tool with the official TypeScript client and prints what it saw as one JSON object.
// node drive.mjs http URL MODEL | node drive.mjs stdio PROGRAM MODEL ADDRESS HOME
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [how, where, model, address, home] = process.argv.slice(2);
const transport = how === "http"
  ? new StreamableHTTPClientTransport(new URL(where))
  : new StdioClientTransport({
      command: where,
      args: ["mcp"],
      env: { ...process.env, INGLE_LISTEN: address, INGLE_HOME: home },
    });
const client = new Client({ name: "drive", version: "1" });
await client.connect(transport);
const call = (name, args = {}, options = {}) =>
  // The client holds the answer to the tool's own schema.
  client.callTool({ name, arguments: args }, undefined, { timeout: 120_000, ...options });

const seen = { server: client.getServerVersion().name, progress: [] };
seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
seen.list = (await call("list_models")).structuredContent;
seen.pull = (await call("pull_model", { model })).structuredContent;
seen.info = (await call("model_info", { model })).structuredContent;
// Others may have loaded it: of a loaded model there is no progress.
await call("unload_model", { model });
seen.load = (await call("load_model", { model, keep_alive: "10m" }, {
  onprogress: (step) => seen.progress.push(step.progress),
})).structuredContent;
seen.unload = (await call("unload_model", { model })).structuredContent;
seen.unknown = await call("load_model", { model: "no-such-model" });
seen.malformed = await call("load_model", { modle: "x" }).then(() => null, (error) => error.code);
seen.resources = (await client.listResources()).resources.map((resource) => resource.uri);
seen.templates = (await client.listResourceTemplates()).resourceTemplates.length;
seen.read = JSON.parse((await client.readResource({ uri: seen.resources[0] })).contents[0].text);
await client.ping();
await client.close();
console.log(JSON.stringify(seen));
