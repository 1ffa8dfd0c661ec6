// Echo server and echo client on ws from npm, for the interop tests.
//
//   node echo.mjs server '{"deflate": true, "cert": "...", "key": "..."}'
//       prints {"port": ...} and serves until its standard input ends.
//   node echo.mjs client '{"url": "...", "deflate": true, "ca": "...",
//                          "protocols": [], "messages": [["text", "..."], ...]}'
//       sends every message, waits for its echo, closes, prints what came back.
//
// The text "close 4000 reason" is not echoed: the server closes with it.

import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { WebSocket, WebSocketServer } from "ws";

const MAX_PAYLOAD = 16 * 1024 * 1024;
const role = process.argv[2];
const options = JSON.parse(process.argv[3] ?? fs.readFileSync(0, "utf8"));
// Without a threshold of zero, ws leaves short messages uncompressed.
const perMessageDeflate = options.deflate ? { threshold: 0 } : false;

function serve() {
  const server = options.cert
    ? https.createServer({
        cert: fs.readFileSync(options.cert),
        key: fs.readFileSync(options.key),
      })
    : http.createServer();
  const sockets = new WebSocketServer({
    server,
    perMessageDeflate,
    maxPayload: MAX_PAYLOAD,
    handleProtocols: (offered) => (offered.has("chat") ? "chat" : false),
  });
  sockets.on("connection", (socket) => {
    socket.on("message", (data, isBinary) => {
      const match = isBinary ? null : /^close (\d+) (.*)$/.exec(data);
      if (match) socket.close(Number(match[1]), match[2]);
      else socket.send(data, { binary: isBinary });
    });
    socket.on("error", (error) => console.error(String(error)));
  });
  server.listen(0, "127.0.0.1", () => {
    console.log(JSON.stringify({ port: server.address().port }));
  });
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(0));
}

function encode(data, isBinary) {
  return isBinary ? ["binary", data.toString("base64")] : ["text", data.toString()];
}

function decode([kind, data]) {
  return kind === "binary" ? Buffer.from(data, "base64") : data;
}

function talk() {
  const socket = new WebSocket(options.url, options.protocols, {
    perMessageDeflate,
    maxPayload: MAX_PAYLOAD,
    ca: options.ca && fs.readFileSync(options.ca),
  });
  const queue = options.messages.map(decode);
  const result = { messages: [], pongs: 0 };

  function next() {
    if (queue.length) socket.send(queue.shift());
    else if (options.close) socket.close(...options.close);
  }
  socket.on("open", () => {
    result.extensions = socket.extensions;
    result.protocol = socket.protocol;
    socket.ping("are you there");
  });
  socket.on("pong", (data) => {
    if (String(data) === "are you there") result.pongs += 1;
    next();
  });
  socket.on("message", (data, isBinary) => {
    result.messages.push(encode(data, isBinary));
    next();
  });
  socket.on("error", (error) => console.error(String(error)));
  socket.on("close", (code, reason) => {
    process.stdout.write(JSON.stringify({ ...result, code, reason: String(reason) }));
  });
}

if (role === "server") serve();
else talk();
