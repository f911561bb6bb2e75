"""The server as a child process, for the stories of this folder. Needs nothing but Python."""

import json
import re
import subprocess
import time

BEGUN = time.monotonic()


def saw(text):
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", flush=True)


class Server:
    """The server as a child process, asked one thing after the other."""

    def __init__(self, binary, venv, home, **more):
        # What a client started from a desktop has, and what this test must not depend on: no virtual environment on PATH.
        env = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "OUMI_MCP_HOME": str(home / "data"),
            "OUMI_MCP_OUMI": f"{venv}/bin/oumi",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            **more,
        }
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd="/")
        self.asked = 0
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "real", "version": "1"}}
        self.ask("initialize", hello)
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def say(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, method, params):
        self.asked += 1
        self.say({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params})
        while True:
            line = self.process.stdout.readline()
            assert line, "the server has ended"
            message = json.loads(line)
            if message.get("id") == self.asked:
                return message["result"]

    def call(self, tool, **arguments):
        return self.ask("tools/call", {"name": tool, "arguments": arguments})["structuredContent"]

    def launch(self, project, config, job_name, **more):
        answer = self.call(
            "run_job", config_path=config, command="train", client_cwd=str(project), job_name=job_name,
            dry_run=False, confirm=True, user_confirmation="EXECUTE", **more,
        )  # fmt: skip
        assert answer["success"], answer
        saw(f"{job_name}: {answer['status']}: {answer['message']}")
        return answer

    def poll(self, job_id):
        answer = self.call("poll_status", job_id=job_id)
        assert answer["success"], answer
        return answer

    def logs(self, job_id, lines=2000):
        answer = self.call("get_job_logs", job_id=job_id, lines=lines)
        assert answer["success"], answer
        return answer["logs"]

    def until_done(self, job_id):
        answer = until(f"{job_id} is done", lambda: (found := self.poll(job_id))["is_done"] and found)
        saw(f"{job_id}: {answer['status']}, {answer.get('metadata')}, {answer['message']}")
        return answer

    def until_it_trains(self, job_id):
        def losses():
            status = self.poll(job_id)
            assert not status["is_done"], (status, self.logs(job_id, 40))
            return len(re.findall(r"'loss': ", self.logs(job_id)))

        saw(f"{job_id}: trains, {until(f'{job_id} trains', losses)} losses in the log")

    def cancel(self, job_id):
        begun = time.monotonic()
        answer = self.call("cancel_job", job_id=job_id)
        seconds = time.monotonic() - begun
        assert answer["success"] and answer["is_done"] and answer["state"] == "CANCELLED", answer
        saw(f"{job_id}: cancelled within {seconds:.2f} s: {answer['message']}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=5) == 0, self.process.returncode


def until(what, look, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.25)
    return found
