"""One story of the server, told through each Python client in each protocol: story.py <server binary>.

List the tools, preview a job, launch it, poll until it is done, read its log; cancel a second, longer one; restart the
server on the same data folder and find both again as they ended. Any wrong answer ends it with an error.

The clients are `sdk`, the official one, and `fastmcp`, which at the end lists the jobs by its command line too. They are
imported once for all: that takes longer than a story.
"""

import asyncio
import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import fastmcp
from fastmcp.client.transports import StdioTransport
from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

TOOLS = ["run_job", "poll_status", "get_job_logs", "cancel_job", "list_jobs"]
PROMPTS = ["train", "watch_job", "why_failed"]
JOBS = Path(__file__).parent / "jobs"


class Complaints(logging.Handler):
    """What the SDK logs as a warning or worse: a line on stdout that is no message, a tool it does not know."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.heard = []

    def emit(self, record):
        self.heard.append(record.getMessage())


class Server:
    """A connection, of whichever protocol, whose every answer is held against the tool's output schema."""

    def __init__(self, session, connection):
        self.session = session
        self.connection = connection

    async def call(self, tool, **arguments):
        # The SDK refuses an answer that does not fit its schema, but not one that says it is an error.
        result = await self.connection.call_tool(tool, arguments)
        await self.session.validate_tool_result(tool, result)
        answer = result.structured_content
        assert result.is_error == (not answer.get("success", True)), (tool, result)
        return answer

    async def poll_until_done(self, job_id):
        deadline = time.monotonic() + 60
        while True:
            answer = await self.call("poll_status", job_id=job_id)
            assert answer["success"], answer
            if answer["is_done"]:
                return answer
            assert answer["status"] in ("launching", "running"), answer
            assert time.monotonic() < deadline, answer
            await asyncio.sleep(0.1)


@asynccontextmanager
async def server(binary, client, protocol, home):
    env = {"HOME": str(home), "OUMI_MCP_HOME": str(home / "data")}
    parameters = StdioServerParameters(command=binary, env=env, cwd="/")
    if client == "fastmcp":
        mode = "auto" if protocol == "2026-07-28" else "legacy"
        transport = StdioTransport(binary, [], env=env, cwd="/", keep_alive=False)
        async with fastmcp.Client(transport, mode=mode, timeout=30) as connection:
            assert connection.protocol_version == protocol, connection.protocol_version
            assert connection.server_info.icons[0].mime_type == "image/png", connection.server_info
            yield Server(connection.session, SimpleNamespace(call_tool=connection.call_tool_mcp))
    elif protocol == "2026-07-28":
        async with Client(stdio_client(parameters), read_timeout_seconds=30) as connection:
            assert connection.protocol_version == protocol, connection.protocol_version
            yield Server(connection.session, connection)
    else:
        async with stdio_client(parameters) as (read, write):
            async with ClientSession(read, write, read_timeout_seconds=30) as session:
                hello = await session.initialize()
                assert hello.protocol_version == protocol, hello
                assert hello.server_info.icons[0].mime_type == "image/png", hello
                yield Server(session, session)


def listed_by_command_line(binary, home):
    command = shlex.join(["env", f"OUMI_MCP_HOME={home / 'data'}", binary])
    program = Path(sys.executable).with_name("fastmcp")
    called = subprocess.run(
        [program, "call", "--command", command, "--target", "list_jobs", "--json"],
        env={**os.environ, "HOME": str(home)}, cwd=home, check=True, capture_output=True, timeout=120,
    )
    return json.loads(called.stdout)["structured_content"]


async def refuses_what_does_not_fit(session):
    """The check of the answers can fail."""
    result = await session.call_tool("list_jobs", {})
    result.structured_content["jobs"] = "none"
    try:
        await session.validate_tool_result("list_jobs", result)
    except RuntimeError:
        return
    raise AssertionError("an answer that does not fit its schema was let through")


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def story(binary, client, protocol, home):
    project = home / "project"
    project.mkdir()
    for config in JOBS.iterdir():
        (project / config.name).write_text(config.read_text())
    count = {"config_path": "count.yaml", "command": "train", "client_cwd": str(project)}
    long = {**count, "config_path": "long.yaml", "job_name": "long"}
    consent = {"dry_run": False, "confirm": True, "user_confirmation": "EXECUTE"}

    async with server(binary, client, protocol, home) as first:
        listed = await first.session.list_tools()
        names = [tool.name for tool in listed.tools]
        assert set(TOOLS) <= set(names), names
        assert all(tool.output_schema for tool in listed.tools), listed
        await refuses_what_does_not_fit(first.session)

        prompts = (await first.session.list_prompts()).prompts
        assert [prompt.name for prompt in prompts] == PROMPTS, prompts
        train = await first.session.get_prompt("train", {"config_path": "count.yaml"})
        assert "count.yaml" in train.messages[0].content.text, train

        preview = await first.call("run_job", **count)
        assert preview["success"] and preview["status"] == "dry_run" and preview["dry_run"], preview
        assert preview["plan_id"] and preview["message"], preview
        assert (await first.call("list_jobs"))["jobs"] == []
        blocked = await first.call("run_job", **count, dry_run=False)
        assert blocked["status"] == "blocked", blocked

        launched = await first.call("run_job", **count, **consent)
        assert launched["success"] and launched["launch_confirmed"] and not launched.get("dry_run"), launched
        count_id = launched["job_id"]
        ended = await first.poll_until_done(count_id)
        assert (ended["status"], ended["state"]) == ("completed", "SUCCEEDED"), ended
        log = await first.call("get_job_logs", job_id=count_id)
        assert log["logs"].split("\n") == ["line 1 of 3", "line 2 of 3", "line 3 of 3", "and one on stderr"], log
        assert log["lines_returned"] == 4, log

        launched = await first.call("run_job", **long, **consent)
        assert launched["success"] and launched["job_id"] == "long", launched
        deadline = time.monotonic() + 20
        while len(pids := (project / "pids").read_text().split() if (project / "pids").exists() else []) < 2:
            assert time.monotonic() < deadline, "the long job has not begun"
            await asyncio.sleep(0.05)
        running = await first.call("poll_status", job_id="long")
        assert (running["state"], running["is_done"]) == ("RUNNING", False), running
        cancelled = await first.call("cancel_job", job_id="long")
        assert cancelled["success"] and cancelled["is_done"] and cancelled["state"] == "CANCELLED", cancelled
        assert not [pid for pid in pids if lives(int(pid))], pids
        missing = await first.call("poll_status", job_id="nobody")
        assert not missing["success"] and missing["status"] == "not_found", missing

    async with server(binary, client, protocol, home) as second:
        await second.session.list_tools()
        found = await second.call("list_jobs")
        rows = {row["job_id"]: row["status"] for row in found["jobs"]}
        assert rows == {count_id: "completed", "long": "cancelled"}, found
        assert not found.get("warnings"), found
        again = await second.call("poll_status", job_id="long")
        assert (again["state"], again["is_done"]) == ("CANCELLED", True), again
        log = await second.call("get_job_logs", job_id=count_id, lines=1)
        assert log["logs"] == "and one on stderr", log


def tell(binary, client, protocol, complaints):
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        asyncio.run(story(binary, client, protocol, home))
        # The command line chooses the protocol itself.
        if (client, protocol) == ("fastmcp", "2026-07-28"):
            rows = listed_by_command_line(binary, home)["jobs"]
            assert sorted(row["status"] for row in rows) == ["cancelled", "completed"], rows
    assert complaints.heard == [], complaints.heard
    print(f"ok: Python, {client}, {protocol}, {time.monotonic() - begun:.1f} s")


def main():
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    for client in ("sdk", "fastmcp"):
        for protocol in ("2026-07-28", "2025-11-25"):
            tell(sys.argv[1], client, protocol, complaints)


main()
