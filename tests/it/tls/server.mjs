// A proxy with TLS in front of a server, as there is one in earnest: `node server.mjs BACKEND CERTIFICATE ADDRESS`.
// Says its port, then each request that it passes on.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const backend = new URL(process.argv[2]);
const file = (name) => readFileSync(new URL(name, import.meta.url));

const server = https.createServer({ key: file("server.key"), cert: file(process.argv[3]) }, (incoming, outgoing) => {
  const { method, url: path, headers } = incoming;
  const onward = http.request({ host: backend.hostname, port: backend.port, method, path, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.pipe(outgoing);
  });
  incoming.pipe(onward);
  console.log(`passed ${method} ${path}`);
});
server.listen(0, process.argv[4], () => console.log(`port ${server.address().port} of TLS`));
