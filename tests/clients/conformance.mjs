// The official conformance suite over bridge.mjs: node conformance.mjs <server binary>.
//
// It is run in each version of the protocol that it knows. What fails must be in expected-failures.yaml, with a reason, and
// what is in there must fail.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { serve } from "./bridge.mjs";

const DEADLINE = 120_000;
const here = dirname(fileURLToPath(import.meta.url));
const suite = join(here, "node_modules/@modelcontextprotocol/conformance/dist/index.js");
const binary = process.argv[2];
const home = mkdtempSync(join(tmpdir(), "oumi-mcp-conformance-"));
const bridge = await serve(binary, { PATH: process.env.PATH, HOME: home, OUMI_MCP_HOME: join(home, "data") });
const begun = Date.now();

// Of the extension for tasks, those of which something can be tried without tools that only a server made for it has.
const RUNS = {
  "2025-03-26": ["--suite", "all", "--spec-version", "2025-03-26"],
  "2025-06-18": ["--suite", "all", "--spec-version", "2025-06-18"],
  "2025-11-25": ["--suite", "all", "--spec-version", "2025-11-25"],
  "2026-07-28": ["--suite", "all", "--spec-version", "2026-07-28"],
  "declaring tasks": ["--scenario", "tasks-capability-negotiation"],
  "asking for tasks": ["--scenario", "tasks-dispatch-and-envelope"],
};

async function run(name) {
  const args = [suite, "server", "--url", bridge.url, ...RUNS[name]];
  args.push("--expected-failures", join(here, "expected-failures.yaml"), "--output-dir", join(home, name));
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"], timeout: DEADLINE });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
  const code = await new Promise((ended) => child.on("close", (code, signal) => ended(code ?? signal)));
  if (code !== 0) {
    throw new Error(`the suite (${name}) ended with ${code}:\n${said.slice(-8000)}`);
  }
  const [, passed, failed] = said.match(/(?:Total|Passed): (\d+)(?: passed|\/\d+), (\d+) failed/);
  return `${name} ${passed} passed, ${failed} failed`;
}

try {
  const totals = [];
  for (const name of Object.keys(RUNS)) {
    totals.push(await run(name));
  }
  console.log(`ok: conformance suite, ${((Date.now() - begun) / 1000).toFixed(1)} s: ${totals.join("; ")}, all expected`);
} finally {
  bridge.close();
  rmSync(home, { recursive: true, force: true, maxRetries: 3 });
}
