// Serves the stdio server over HTTP, for clients that speak nothing else.
//
// It hands on lines as they are and knows as little as it can: what a client gets is what the server said over its pipes. With
// `initialize` a process of the server is started for that session; a request without a session (2026-07-28) has a process
// for itself alone, which shows that nothing is kept between two.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

// What 2026-07-28 wants of HTTP where a request is refused.
const STATUS = { "-32601": 404, "-32602": 400, "-32021": 400, "-32022": 400 };

class Server {
  constructor(binary, env) {
    // What it logs of calls that are refused is no matter here.
    this.child = spawn(binary, { env, cwd: "/", stdio: ["pipe", "pipe", "ignore"] });
    this.child.stdin.on("error", () => {});
    // Who waits for the answer with an id, and where what answers nothing is told.
    this.waiting = new Map();
    this.listener = null;
    createInterface({ input: this.child.stdout }).on("line", (line) => this.heard(line));
    this.child.on("exit", () => {
      for (const stream of this.waiting.values()) stream.end();
      this.listener?.end();
    });
  }

  say(line) {
    this.child.stdin.write(line + "\n");
  }

  heard(line) {
    const message = JSON.parse(line);
    const answered = "method" in message ? undefined : this.waiting.get(message.id);
    const stream = answered ?? [...this.waiting.values()].at(-1) ?? this.listener;
    stream?.send(line, message);
    if (answered) {
      this.waiting.delete(message.id);
      answered.end();
    }
  }

  end() {
    this.child.stdin.end();
  }
}

/** A response of many messages; its status is known with the first. */
class Stream {
  constructor(response, headers, stateless) {
    this.response = response;
    this.headers = headers;
    this.stateless = stateless;
  }

  open(status = 200) {
    if (!this.response.headersSent) {
      this.response.writeHead(status, { ...this.headers, "content-type": "text/event-stream", "cache-control": "no-cache" });
      this.response.flushHeaders();
    }
  }

  send(line, message) {
    this.open(this.stateless ? STATUS[message.error?.code] : 200);
    this.response.write(`event: message\ndata: ${line}\n\n`);
  }

  end() {
    this.open();
    this.response.end();
  }
}

async function handle(request, response, sessions, start) {
  const refuse = (status) => response.writeHead(status).end();
  if (new URL(request.url, "http://localhost").pathname !== "/mcp") return refuse(404);
  const id = request.headers["mcp-session-id"];
  const session = sessions.get(id);
  if (id && !session) return refuse(404);
  if (request.method === "DELETE" && session) {
    sessions.delete(id);
    session.end();
    return refuse(200);
  }
  if (request.method === "GET" && session) {
    const stream = new Stream(response);
    stream.open();
    session.listener = stream;
    return;
  }
  if (request.method !== "POST") return refuse(405);

  let body = "";
  for await (const chunk of request.setEncoding("utf8")) body += chunk;
  let message;
  try {
    message = JSON.parse(body);
  } catch {
    return refuse(400);
  }
  // A line of its own, whatever the body was.
  const line = JSON.stringify(message);
  const version = message.params?._meta?.["io.modelcontextprotocol/protocolVersion"] ?? "";
  const begins = message.method === "initialize" && version < "2026-07-28";
  const stateless = !session && !begins;
  const server = session ?? start();
  const headers = {};
  if (begins && !session) {
    headers["mcp-session-id"] = randomUUID();
    sessions.set(headers["mcp-session-id"], server);
  }
  if (!("method" in message && "id" in message)) {
    server.say(line);
    if (!session) server.end();
    return refuse(202);
  }
  const stream = new Stream(response, headers, stateless);
  server.waiting.set(message.id, stream);
  response.on("close", () => {
    server.waiting.delete(message.id);
    if (stateless) server.end();
  });
  server.say(line);
}

/** The address, and how to end it with every process of the server. */
export async function serve(binary, env) {
  const sessions = new Map();
  const http = createServer((request, response) => {
    handle(request, response, sessions, () => new Server(binary, env)).catch((error) => response.destroy(error));
  });
  await new Promise((listens) => http.listen(0, "127.0.0.1", listens));
  const close = () => {
    for (const session of sessions.values()) session.end();
    http.close();
    http.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${http.address().port}/mcp`, close };
}
