// The story of story.py through the Inspector's command line: node inspector.mjs <server binary> <legacy or modern>. Every call
// is another process of it and of the server, so that each finds again what the one before left.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const [binary, era] = process.argv.slice(2);
const inspector = fileURLToPath(import.meta.resolve("@modelcontextprotocol/inspector/package.json"));
const program = join(inspector, "../clients/launcher/build/index.js");
const home = mkdtempSync(join(tmpdir(), "oumi-mcp-inspector-"));
const project = join(home, "project");
cpSync(fileURLToPath(new URL("jobs", import.meta.url)), project, { recursive: true });

const options = { env: { PATH: process.env.PATH, HOME: home }, encoding: "utf8", timeout: 60_000 };

function commandLine(method, ...more) {
  const args = [program, "--cli", binary, "-e", `OUMI_MCP_HOME=${join(home, "data")}`];
  return [...args, "--protocol-era", era, "--format", "json", "--method", method, ...more];
}

function ask(method, ...more) {
  const { status, stdout, stderr, error } = spawnSync(process.execPath, commandLine(method, ...more), options);
  assert.equal(error, undefined);
  // Whatever it complains of ends up there.
  assert.deepEqual([status, stderr], [0, ""], `${more}: ${stdout}`);
  return JSON.parse(stdout).result;
}

const named = (tool, args) => ["--tool-name", tool, "--tool-args-json", JSON.stringify(args)];

function call(tool, args = {}) {
  const result = ask("tools/call", ...named(tool, args));
  assert.equal(result.structuredContent.success ?? true, true);
  return result.structuredContent;
}

function until(look) {
  for (const end = Date.now() + 60_000; ; ) {
    const found = look();
    if (found) return found;
    assert.ok(Date.now() < end, `nothing after a minute: ${look}`);
  }
}

const begun = Date.now();
try {
  const names = ask("tools/list", "--strict").tools.map((tool) => tool.name);
  assert.ok(names.includes("run_job"), `${names}`);
  assert.equal(ask("prompts/list").prompts.length, 3);
  const why = ask("prompts/get", "--prompt-name", "why_failed", "--prompt-args", "job_id=sft");
  assert.match(why.messages[0].content.text, /"sft"/);

  const count = { config_path: "count.yaml", command: "train", client_cwd: project, job_name: "count" };
  const consent = { dry_run: false, confirm: true, user_confirmation: "EXECUTE" };
  assert.equal(call("run_job", count).status, "dry_run");
  assert.deepEqual(call("list_jobs").jobs, []);
  assert.equal(call("run_job", { ...count, ...consent }).job_id, "count");
  const long = { ...count, config_path: "long.yaml", job_name: "long" };
  // With the newer protocol it takes a task for an answer, and waits for its end: until the job is cancelled.
  const launch = spawn(process.execPath, commandLine("tools/call", ...named("run_job", { ...long, ...consent })), options);
  const launched = new Promise((ended) => launch.on("close", ended));
  const ended = until(() => {
    const answer = call("poll_status", { job_id: "count", wait_seconds: 30 });
    return answer.is_done && answer;
  });
  assert.equal(ended.state, "SUCCEEDED");
  assert.equal(call("get_job_logs", { job_id: "count", lines: 1 }).logs, "and one on stderr");
  until(() => call("list_jobs").jobs.some((row) => row.job_id === "long" && row.status === "running"));
  assert.equal(call("cancel_job", { job_id: "long" }).state, "CANCELLED");
  await launched;
  const rows = call("list_jobs").jobs.map((row) => [row.job_id, row.status]);
  assert.deepEqual(rows, [["long", "cancelled"], ["count", "completed"]]);
} finally {
  rmSync(home, { recursive: true, force: true, maxRetries: 3 });
}
console.log(`ok: Inspector, ${era}, ${((Date.now() - begun) / 1000).toFixed(1)} s`);
