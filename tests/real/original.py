#!/usr/bin/env python3
"""This server beside Oumi's own Python server, with one client: start, memory, status, the end of a log of 1 GB, and a list.

    cargo build --release && tests/real/original.py

Oumi's server is installed once, from its package, into ${XDG_CACHE_HOME:-~/.cache}/oumi-mcp-server-original, over the virtual
environment of venv.sh. The jobs of both are the same stub of `oumi`, so that nothing is measured but the servers.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = os.environ.get("BIN", HERE.parent.parent / "target/release/oumi-mcp-server")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
ORIGINAL = "oumi[mcp]==0.9"
# More would hang Oumi's server: it waits for each job in a thread, and has as many as the machine has cores, and four.
JOBS = 4
STUB = """#!/bin/sh
case "$*" in *big.yaml*) seq -f 'step %.0f of a run that says what it does, a line each' 17000000 ;; esac
echo the end; exec sleep 600
"""


def install():
    venv = CACHE / "oumi-mcp-server-original"
    if not (venv / "whole").exists():
        base = subprocess.run([HERE / "venv.sh"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        subprocess.run([f"{base}/bin/python", "-m", "venv", venv], check=True)
        packages = next((venv / "lib").glob("python3*/site-packages"))
        (packages / "base.pth").write_text(str(next(Path(base, "lib").glob("python3*/site-packages"))))
        subprocess.run([venv / "bin/pip", "install", "-q", ORIGINAL], check=True)
        (venv / "whole").touch()
    return venv / "bin/python"


class Client:
    def __init__(self, command, home, **more):
        (home / "bin").mkdir(parents=True, exist_ok=True)
        (home / "bin/oumi").write_text(STUB)
        (home / "bin/oumi").chmod(0o755)
        env = {**os.environ, "HOME": str(home), "OUMI_MCP_HOME": f"{home}/data", "PATH": f"{home}/bin:{os.environ['PATH']}"}
        env.update(DO_NOT_TRACK="1", HF_HUB_OFFLINE="1", XDG_CACHE_HOME=f"{home}/cache", OUMI_MCP_OUMI=f"{home}/bin/oumi", **more)
        self.home, self.last_id, begin = home, 0, time.perf_counter()
        self.process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, env=env, cwd=home)
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "original", "version": "1"}}
        self.ask("initialize", hello)
        self.start = time.perf_counter() - begin
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, method, params):
        self.last_id += 1
        self.send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        while line := self.process.stdout.readline():
            # Oumi's server prints warnings of its libraries there too.
            message = json.loads(line) if line.startswith(b"{") else {}
            if message.get("id") == self.last_id:
                return message["result"]
        raise SystemExit("the server has ended")

    def call(self, tool, **arguments):
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        assert not result.get("isError"), result
        return result.get("structuredContent")

    def seconds(self, times, tool, **arguments):
        def one():
            begin = time.perf_counter()
            self.call(tool, **arguments)
            return time.perf_counter() - begin

        return statistics.median(one() for _ in range(times))

    def megabytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1e3

    def run(self, tool, config, **more):
        (self.home / config).write_text(f"model:\n  model_name: {config}\n")
        answer = self.call(tool, config_path=config, command="train", client_cwd=str(self.home), dry_run=False, **more)
        return answer["job_id"]


def measure(client, run, status, more):
    figures = {"start to `initialize` answered, ms": client.start * 1e3}
    time.sleep(2)
    figures["resident when idle, MB"] = client.megabytes()
    jobs = [client.run(run, f"job-{n}.yaml", **more) for n in range(JOBS)]
    jobs.append(client.run(run, "big.yaml", **more))
    try:
        until = time.monotonic() + 120
        while "the end" not in str(client.call("get_job_logs", job_id=jobs[-1], lines=5)):
            assert time.monotonic() < until, "the log does not end"
            time.sleep(1)
        figures["status of a job, ms"] = 1e3 * client.seconds(100, status, job_id=jobs[0])
        figures["last 200 lines of 1 GB, ms"] = 1e3 * client.seconds(5, "get_job_logs", job_id=jobs[-1], lines=200)
        figures[f"list of {JOBS + 1} jobs, ms"] = 1e3 * client.seconds(20, "list_jobs")
        figures["resident after that, MB"] = client.megabytes()
    finally:
        for job in jobs:
            client.call("cancel_job", job_id=job, force=True)
        client.process.stdin.close()
        client.process.wait(timeout=20)
    return figures


def main():
    if not Path(OURS).exists():
        sys.exit(f"error: {OURS} is not there; run cargo build --release first, or set BIN")
    python = install()
    with tempfile.TemporaryDirectory() as folder:
        agreed = {"confirm": True, "user_confirmation": "EXECUTE"}
        ours = measure(Client([OURS], Path(folder, "ours")), "run_job", "poll_status", agreed)
        command = [python, "-m", "oumi.mcp"]
        original = measure(Client(command, Path(folder, "original")), "run_oumi_job", "get_job_status", {})
    print(f"| | this server | {ORIGINAL} | |\n|---|---|---|---|")
    for name, figure in ours.items():
        print(f"| {name} | {figure:.1f} | {original[name]:.1f} | {original[name] / figure:.0f} × |")
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(f"\n{time.strftime('%d %B %Y')}, {platform.system()} on {os.cpu_count()} cores of {cpu or platform.machine()}.")


if __name__ == "__main__":
    main()
