// Watches one pool with the client module as the server serves it, over the package `ws`, and tells
// on its standard output what it hears and, when asked on its standard input, what it holds.
// Arguments: the server's origin, the pool, the directory of `ws`. Run by client_module.rs.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [base, poolId, ws] = process.argv.slice(2);
const WebSocket = createRequire(import.meta.url)(ws);

/** The newest socket, to be paused: it then takes nothing off the network. */
let socket;
class Pausable extends WebSocket {
  constructor(url) {
    super(url);
    socket = this;
  }
}

/** Node imports nothing over HTTP: each file becomes a `data:` address, which those that import it name. */
async function addressOf(name) {
  let source = await (await fetch(new URL(name, base))).text();
  for (const [whole, imported] of source.matchAll(/ from "\.\/([^"]+)"/g)) {
    source = source.replace(whole, ` from ${JSON.stringify(await addressOf(imported))}`);
  }
  return `data:text/javascript,${encodeURIComponent(source)}`;
}
const { PoolFeed } = await import(await addressOf("metrics-client.js"));
const feed = new PoolFeed({ poolId, base, WebSocket: Pausable });
feed.addEventListener("connection", ({ detail }) => console.log("connection", detail.state, detail.reason ?? ""));
let changes = 0;
feed.addEventListener("change", ({ detail }) => {
  changes += 1;
  if (detail.kind === "snapshot") console.log("snapshot", detail.restarted ? "of a new server" : "");
});
feed.start();

const commands = {
  pause: () => socket.pause(),
  resume: () => socket.resume(),
  count: () => changes,
  tell: () => {
    const { agents, departed, connection, epoch } = feed;
    const held = { agents: Object.fromEntries(agents), departed: Object.fromEntries(departed) };
    return { ...held, epoch, state: connection.state };
  },
};
// Each command is a word and a number; the answer bears the number.
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [word, number] = line.split(" ");
    console.log("answer", number, JSON.stringify(commands[word]() ?? null));
  })
  .on("close", () => process.exit());
