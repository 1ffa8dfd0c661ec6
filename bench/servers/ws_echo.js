'use strict';
// ws for Node.js, the server that most of the web's servers are.

const fs = require('fs');
const http = require('http');
const https = require('https');
const path = require('path');

const options = {};
for (let i = 2; i < process.argv.length; i++) {
  const name = process.argv[i].slice(2);
  const next = process.argv[i + 1];
  if (next === undefined || next.startsWith('--')) options[name] = true;
  else options[name] = process.argv[++i];
}
// bench/node_modules, where `python -m bench setup` puts it.
const ws = require(path.join(__dirname, '..', 'node_modules', 'ws'));
const { version } = require(path.join(__dirname, '..', 'node_modules', 'ws', 'package.json'));

const server = options.cert
  ? https.createServer({ cert: fs.readFileSync(options.cert), key: fs.readFileSync(options.key) })
  : http.createServer();
const wss = new ws.WebSocketServer({
  server,
  perMessageDeflate: Boolean(options.deflate),
});
wss.on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (data, isBinary) => {
    if (options.mode !== 'broadcast') {
      // Text becomes a string, as in every other server here.
      socket.send(isBinary ? data : data.toString(), { binary: isBinary });
      return;
    }
    const text = isBinary ? data : data.toString();
    for (const client of wss.clients) client.send(text, { binary: isBinary });
  });
});
server.listen({ port: Number(options.port), host: '127.0.0.1', backlog: 4096 }, () => {
  console.log(JSON.stringify({ versions: { ws: version, node: process.version }, loop: 'libuv' }));
});
