// The story of story.py through the official TypeScript SDKs: node story.mjs <server binary> <protocol version>.
// The newer package speaks 2026-07-28, the older one 2025-11-25; both refuse an answer that does not fit its output schema.
import assert from "node:assert/strict";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";

const [binary, protocol] = process.argv.slice(2);
const modern = protocol === "2026-07-28";
const { Client } = await import(modern ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = await import(
  modern ? "@modelcontextprotocol/client/stdio" : "@modelcontextprotocol/sdk/client/stdio.js"
);

const home = mkdtempSync(join(tmpdir(), "oumi-mcp-story-"));
const complaints = [];
// Where the SDKs say what they think of a schema.
console.warn = (...said) => complaints.push(said.join(" "));

async function withServer(use) {
  const client = new Client(
    { name: "story", version: "1" },
    modern ? { versionNegotiation: { mode: { pin: protocol } } } : {},
  );
  // A line on stdout that is no message ends up here.
  client.onerror = (error) => complaints.push(String(error));
  const env = { PATH: process.env.PATH, HOME: home, OUMI_MCP_HOME: join(home, "data") };
  const transport = new StdioClientTransport({ command: binary, env, cwd: "/" });
  if (!modern) {
    transport.setProtocolVersion = (version) => assert.equal(version, protocol);
  }
  await client.connect(transport);
  if (modern) {
    assert.equal(client.getNegotiatedProtocolVersion(), protocol);
  }
  try {
    const { tools } = await client.listTools();
    const call = async (name, args = {}) => {
      const result = await client.callTool({ name, arguments: args });
      const answer = result.structuredContent;
      assert.equal(result.isError ?? false, answer.success === false, JSON.stringify(result));
      return answer;
    };
    await use(call, tools, client);
  } finally {
    await client.close();
  }
}

async function until(deadline, look) {
  for (const end = Date.now() + deadline; ; await sleep(100)) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < end, `nothing after ${deadline} ms: ${look}`);
  }
}

function lives(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    assert.equal(error.code, "ESRCH");
    return false;
  }
}

async function story() {
  const project = join(home, "project");
  const pids = join(project, "pids");
  cpSync(fileURLToPath(new URL("jobs", import.meta.url)), project, { recursive: true });
  const count = { config_path: "count.yaml", command: "train", client_cwd: project };
  const long = { ...count, config_path: "long.yaml", job_name: "long" };
  const consent = { dry_run: false, confirm: true, user_confirmation: "EXECUTE" };
  let countId;

  await withServer(async (call, tools, client) => {
    const names = tools.map((tool) => tool.name);
    for (const name of ["run_job", "poll_status", "get_job_logs", "cancel_job", "list_jobs"]) {
      assert.ok(names.includes(name), `${names}`);
    }
    assert.ok(tools.every((tool) => tool.outputSchema));

    assert.equal(client.getServerVersion().icons[0].mimeType, "image/png");
    const { prompts } = await client.listPrompts();
    assert.deepEqual(prompts.map((prompt) => prompt.name), ["train", "watch_job", "why_failed"]);
    const train = await client.getPrompt({ name: "train", arguments: { config_path: "count.yaml" } });
    assert.match(train.messages[0].content.text, /config_path="count.yaml"/);

    const preview = await call("run_job", count);
    assert.equal(preview.status, "dry_run");
    assert.deepEqual((await call("list_jobs")).jobs, []);
    assert.equal((await call("run_job", { ...count, dry_run: false })).status, "blocked");

    const launched = await call("run_job", { ...count, ...consent });
    assert.ok(launched.success && launched.launch_confirmed && !launched.dry_run, JSON.stringify(launched));
    countId = launched.job_id;
    const ended = await until(60_000, async () => {
      const answer = await call("poll_status", { job_id: countId });
      return answer.is_done && answer;
    });
    assert.deepEqual([ended.status, ended.state], ["completed", "SUCCEEDED"]);
    const log = await call("get_job_logs", { job_id: countId });
    assert.equal(log.logs, "line 1 of 3\nline 2 of 3\nline 3 of 3\nand one on stderr");

    assert.equal((await call("run_job", { ...long, ...consent })).job_id, "long");
    const found = await until(20_000, () => {
      const found = existsSync(pids) ? readFileSync(pids, "utf8").trim().split("\n").map(Number) : [];
      return found.length === 2 && found;
    });
    assert.equal((await call("poll_status", { job_id: "long" })).state, "RUNNING");
    const cancelled = await call("cancel_job", { job_id: "long" });
    assert.deepEqual([cancelled.success, cancelled.is_done, cancelled.state], [true, true, "CANCELLED"]);
    assert.deepEqual(found.filter(lives), []);
    assert.equal((await call("poll_status", { job_id: "nobody" })).status, "not_found");
  });

  await withServer(async (call) => {
    const listed = await call("list_jobs");
    const rows = Object.fromEntries(listed.jobs.map((row) => [row.job_id, row.status]));
    assert.deepEqual(rows, { [countId]: "completed", long: "cancelled" });
    assert.deepEqual(listed.warnings ?? [], []);
    assert.equal((await call("poll_status", { job_id: "long" })).state, "CANCELLED");
    assert.equal((await call("get_job_logs", { job_id: countId, lines: 1 })).logs, "and one on stderr");
  });
}

const begun = Date.now();
try {
  await story();
} finally {
  rmSync(home, { recursive: true, force: true, maxRetries: 3 });
}
assert.deepEqual(complaints, []);
console.log(`ok: TypeScript SDK, ${protocol}, ${((Date.now() - begun) / 1000).toFixed(1)} s`);
