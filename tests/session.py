#!/usr/bin/env python3
"""Makes the recorded session of the README: a real server over stdio, with an `oumi` that prints what the real one was seen to print.

    cargo build && python3 tests/session.py            compares; fails when the README is stale
    cargo build && python3 tests/session.py --write    writes it

Ids, paths and times are masked, so that each run gives the same text.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(os.environ.get("BIN", ROOT / "target/debug/oumi-mcp-server"))
README = ROOT / "README.md"
BEGIN, END = "<!-- session: made by tests/session.py -->\n", "<!-- end of the session -->\n"
OUMI = """#!/bin/sh
echo "{'loss': '3.883', 'grad_norm': '1.573', 'learning_rate': '0.0008367', 'epoch': '3.125', 'step': 50}"
until [ -e go ]; do sleep 0.05; done
case "$*" in *large.yaml)
  echo 'Traceback (most recent call last):'
  echo '  File "train.py", line 220, in step'
  echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB'
  exit 1;;
esac
mkdir -p out
echo "{'loss': '0.412', 'grad_norm': '0.271', 'learning_rate': '0', 'epoch': '18.75', 'step': 300}"
"""


class Server:
    def __init__(self, folder):
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "OUMI_MCP_HOME": str(folder / "data"), "OUMI_MCP_OUMI": str(folder / "oumi")}
        self.process = subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.id = 0
        client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "session", "version": "1"}}
        self.request("initialize", client)
        self.send({"method": "notifications/initialized"})

    def send(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def request(self, method, parameters):
        self.id += 1
        self.send({"id": self.id, "method": method, "params": parameters})
        for line in self.process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self.id:
                return answer["result"]
        sys.exit("the server ended")

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def record(folder):
    lines, server = [], Server(folder)

    def mask(text):
        text = text.replace(str(folder / "project"), "/home/me/project").replace(str(folder), "/home/me")
        text = re.sub(r'("plan_id": ")[^"]*', r"\1…", text)
        text = re.sub(r"after \d+ s\b", "after 30 s", text)
        return re.sub(r"\bplan_id=\S*\w", "plan_id=…", text)

    def write(mark, text):
        lines.extend(textwrap.wrap(mask(text), 118, initial_indent=mark, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))

    def says(text):
        lines.append("")
        write("> ", text)

    def call(tool, fields, **arguments):
        answer = server.request("tools/call", {"name": tool, "arguments": arguments})["structuredContent"]
        write("→ ", f"{tool} {json.dumps({name: value for name, value in arguments.items() if name != 'client_cwd'})}")
        for field in fields.split():
            value = answer
            for name in field.split("."):
                value = value[name]
            text = value if isinstance(value, str) else json.dumps(value)
            for line in f"{field}: {text}".splitlines():
                write("  ", line)
        return answer

    def train(name, **more):
        project = {"command": "train", "client_cwd": str(folder / "project")}
        plan = call("run_job", more.pop("fields", "message"), config_path=name, **project)["plan_id"]
        agreed = {"dry_run": False, "confirm": True, "user_confirmation": "EXECUTE", "plan_id": plan}
        if "answer" in more:
            says(more.pop("answer"))
        call("run_job", "job_id", config_path=name, **project, **agreed, **more)

    says("Train with train.yaml. Show me first what you would run.")
    train("train.yaml", fields="message", answer="Go ahead. Call it first.", job_name="first")
    says("How far is it?")
    for _ in range(20):
        news = {"job_id": "first", "wait_seconds": 1, "until": "progress"}
        if "step" in server.request("tools/call", {"name": "poll_status", "arguments": news})["structuredContent"].get("progress", {}):
            break
    call("poll_status", "state message next", job_id="first")
    says("Say when it is done.")
    (folder / "project/go").touch()
    call("poll_status", "state message output_dir", job_id="first", wait_seconds=55)
    says("Now large.yaml.")
    train("large.yaml", fields="status", answer="Yes.", job_name="large")
    call("poll_status", "state failure.what failure.advice", job_id="large", wait_seconds=55)
    server.close()
    return "\n".join(lines[1:])


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "project").mkdir()
        (folder / "oumi").write_text(OUMI)
        (folder / "oumi").chmod(0o755)
        for config, out in [("train", "out"), ("large", "out-large")]:
            (folder / f"project/{config}.yaml").write_text(f"model: {{model_name: ./model}}\ntraining: {{output_dir: {out}}}\n")
        session = f"{BEGIN}```text\n{record(folder)}\n```\n{END}"
    before, rest = README.read_text().split(BEGIN)
    old, after = rest.split(END)
    if "--write" in sys.argv:
        README.write_text(before + session + after)
    elif BEGIN + old + END != session:
        sys.exit(f"the session in README.md is stale: run tests/session.py --write\n{session}")
    print("ok: the session in README.md")


if __name__ == "__main__":
    main()
