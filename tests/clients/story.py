"""One story of the server, told through the official Python SDK: story.py <server binary> <protocol version>.

List the tools, preview a job, launch it, poll until it is done, read its log; cancel a second, longer one; restart the
server on the same data folder and find both again as they ended. Any wrong answer ends it with an error.
"""

import asyncio
import logging
import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

TOOLS = ["run_job", "poll_status", "get_job_logs", "cancel_job", "list_jobs"]
COUNT = """\
name: count
resources:
  cloud: local
run: |
  for i in 1 2 3; do echo "line $i of 3"; sleep 0.2; done
  echo "and one on stderr" >&2
"""
# It ends by itself when the folder of this story is gone, so that nothing is left behind however the story ends.
LONG = """\
name: long
resources:
  cloud: local
run: |
  echo $$ > pids
  (while [ -e pids ]; do sleep 0.2; done) &
  echo $! >> pids
  while [ -e pids ]; do echo working; sleep 0.2; done
"""


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
async def server(binary, protocol, home):
    parameters = StdioServerParameters(
        command=binary,
        env={"HOME": str(home), "OUMI_MCP_HOME": str(home / "data")},
        cwd="/",
    )
    if protocol == "2026-07-28":
        async with Client(stdio_client(parameters), read_timeout_seconds=30) as client:
            assert client.protocol_version == protocol, client.protocol_version
            yield Server(client.session, client)
    else:
        async with stdio_client(parameters) as (read, write):
            async with ClientSession(read, write, read_timeout_seconds=30) as session:
                hello = await session.initialize()
                assert hello.protocol_version == protocol, hello
                yield Server(session, session)


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


async def story(binary, protocol, home):
    project = home / "project"
    project.mkdir()
    (project / "count.yaml").write_text(COUNT)
    (project / "long.yaml").write_text(LONG)
    count = {"config_path": "count.yaml", "command": "train", "client_cwd": str(project)}
    long = {**count, "config_path": "long.yaml", "job_name": "long"}
    consent = {"dry_run": False, "confirm": True, "user_confirmation": "EXECUTE"}

    async with server(binary, protocol, home) as first:
        listed = await first.session.list_tools()
        names = [tool.name for tool in listed.tools]
        assert set(TOOLS) <= set(names), names
        assert all(tool.output_schema for tool in listed.tools), listed
        await refuses_what_does_not_fit(first.session)

        preview = await first.call("run_job", **count)
        assert preview["success"] and preview["status"] == "dry_run" and preview["dry_run"], preview
        assert "bash" in preview["command_line"], preview
        assert (await first.call("list_jobs"))["jobs"] == []
        blocked = await first.call("run_job", **count, dry_run=False)
        assert blocked["status"] == "blocked", blocked

        launched = await first.call("run_job", **count, **consent)
        assert launched["success"] and launched["launch_confirmed"] and not launched["dry_run"], launched
        count_id = launched["job_id"]
        ended = await first.poll_until_done(count_id)
        assert (ended["status"], ended["state"]) == ("completed", "SUCCEEDED"), ended
        assert ended["metadata"]["exit_code"] == 0, ended
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

    async with server(binary, protocol, home) as second:
        await second.session.list_tools()
        found = await second.call("list_jobs")
        rows = {row["job_id"]: row["status"] for row in found["jobs"]}
        assert rows == {count_id: "completed", "long": "cancelled"}, found
        assert found["warnings"] == [], found
        again = await second.call("poll_status", job_id="long")
        assert (again["state"], again["is_done"]) == ("CANCELLED", True), again
        log = await second.call("get_job_logs", job_id=count_id, lines=1)
        assert log["logs"] == "and one on stderr", log


def main():
    binary, protocol = sys.argv[1:]
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(story(binary, protocol, Path(home)))
    assert complaints.heard == [], complaints.heard
    print(f"ok: Python SDK, {protocol}, {time.monotonic() - begun:.1f} s")


main()
