// The official conformance suite over bridge.mjs: node conformance.mjs <server binary>.
//
// It is run once in each version of the protocol that it knows. What fails must be in expected-failures.yaml, with a reason, and
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

async function run(version) {
  const args = [suite, "server", "--url", bridge.url, "--suite", "all", "--spec-version", version];
  args.push("--expected-failures", join(here, "expected-failures.yaml"), "--output-dir", join(home, version));
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"], timeout: DEADLINE });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
  const code = await new Promise((ended) => child.on("close", (code, signal) => ended(code ?? signal)));
  const summary = said.slice(said.lastIndexOf("=== SUMMARY ==="));
  if (code !== 0) {
    throw new Error(`the suite in ${version} ended with ${code}:\n${summary}`);
  }
  return `${version} ${summary.match(/Total: (.*)/)[1]}`;
}

try {
  const totals = [];
  for (const version of ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"]) {
    totals.push(await run(version));
  }
  console.log(`ok: conformance suite, ${((Date.now() - begun) / 1000).toFixed(1)} s: ${totals.join("; ")}, all expected`);
} finally {
  bridge.close();
  rmSync(home, { recursive: true, force: true, maxRetries: 3 });
}
