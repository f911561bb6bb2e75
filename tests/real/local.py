"""Real training runs through the server over stdio: local.py <server binary> <virtual environment with oumi>. See local.sh.

Needs nothing but Python. Prints what was seen with the seconds since the start; any wrong answer ends it with an error, and
whatever was started is killed.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from server import Server, saw, until

HERE = Path(__file__).resolve().parent
# More steps than any machine gets through before the cancel.
MANY = 1_000_000


def marked(job_dir):
    """The processes that carry the mark of the job, by pid."""
    mark = f"OUMI_MCP_JOB_DIR={job_dir}"
    if not Path("/proc/self/environ").exists():
        shown = subprocess.run(["ps", "-axEwwo", "pid=,command="], capture_output=True, text=True, check=True).stdout
        return [int(line.split()[0]) for line in shown.splitlines() if f" {mark} " in f"{line} "]
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
        except OSError:
            pass  # it has just ended
    return found


def named(text):
    """The command lines, as ps shows them, that hold the text."""
    shown = subprocess.run(["ps", "-axwwo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if text in line]


def write_project(project):
    examples = HERE.parent.parent / "examples"
    subprocess.run([sys.executable, examples / "make.py"], cwd=project, check=True, capture_output=True)
    short = (examples / "train.yaml").read_text()
    for example, test in [("max_steps: 300", "max_steps: 6"), ("save_steps: 100", "save_steps: 3"), ("logging_steps: 10", "logging_steps: 1")]:
        assert example in short, example
        short = short.replace(example, test)

    def variant(name, *changes):
        text = short
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (project / f"{name}.yaml").write_text(text)

    variant("ends")
    variant("unseen", ("./out", "./out-unseen"))
    variant("bad", ("TRL_SFT", "NO_SUCH_TRAINER"))
    many = [("max_steps: 6", f"max_steps: {MANY}"), ("save_steps: 3", "save_steps: 0")]
    for name in ("stops", "survives"):
        variant(name, *many, ("./out", f"./out-{name}"))
    variant("workers-train", *many, ("./out", "./out-workers"), ("  model_max_length", "  device_map: cpu\n  model_max_length"))
    # Oumi starts workers for the GPUs it counts; there is none here, so the count comes from SkyPilot's variables.
    (project / "workers.yaml").write_text(
        "envs: {SKYPILOT_NODE_RANK: '0', SKYPILOT_NODE_IPS: 127.0.0.1, SKYPILOT_NUM_NODES: '1', SKYPILOT_NUM_GPUS_PER_NODE: '2', "
        f"SKYPILOT_TASK_ID: x}}\nrun: |\n  oumi distributed torchrun {HERE}/tiny/cpu_worker.py train -c {project}/workers-train.yaml\n"
    )


def story(start, project, jobs, venv):
    def nothing_is_left(job):
        assert marked(jobs / job) == [], marked(jobs / job)
        assert named(f"{project}/{job}") == [], named(f"{project}/{job}")
        saw(f"{job}: no process is left, neither by its mark nor by name")

    server = start()
    preview = server.call("run_job", config_path="ends.yaml", command="train", client_cwd=str(project))
    assert preview["status"] == "dry_run" and "Model: ./model" in preview["message"], preview

    assert server.launch(project, "ends.yaml", "ends")["launch_confirmed"]
    ended = server.until_done("ends")
    assert (ended["status"], ended["state"]) == ("completed", "SUCCEEDED"), ended
    # Those between the first and the last are folded.
    log = server.logs("ends")
    losses = len(re.findall(r"'loss': ", log)) + sum(map(int, re.findall(r"^… (\d+) lines? like it", log, re.M)))
    assert losses == 6, log
    assert (project / "out" / "model.safetensors").exists()
    saw(f"ends: {losses} losses in the log, and {len(list((project / 'out').iterdir()))} files in its output folder")
    nothing_is_left("ends")

    server.launch(project, "bad.yaml", "bad")
    assert server.until_done("bad")["status"] == "failed"
    assert "Invalid value 'NO_SUCH_TRAINER'" in server.logs("bad", 20), server.logs("bad", 20)
    saw("bad: the log says why")

    server.launch(project, "stops.yaml", "stops")
    server.until_it_trains("stops")
    assert marked(jobs / "stops") and named(f"{project}/stops"), "the look at the processes sees nothing"
    server.cancel("stops")
    nothing_is_left("stops")

    server.launch(project, "survives.yaml", "survives")
    server.until_it_trains("survives")
    server.launch(project, "unseen.yaml", "unseen")
    server.kill()
    saw("the server was killed with SIGKILL")
    assert marked(jobs / "unseen"), "it has ended already"
    until("unseen has ended", lambda: not marked(jobs / "unseen"))
    saw("unseen: has ended while no server ran")
    server = start()
    rows = {row["job_id"]: row["status"] for row in server.call("list_jobs")["jobs"]}
    expected = {"ends": "completed", "bad": "failed", "stops": "cancelled", "survives": "running", "unseen": "completed"}
    assert rows == expected, rows
    saw(f"the next server finds them all: {rows}")
    assert server.poll("unseen")["state"] == "SUCCEEDED"
    log = Path(server.call("get_job_logs", job_id="survives")["log_file"])
    size = log.stat().st_size
    until("the log grows", lambda: log.stat().st_size > size, 30)
    saw("survives: its log still grows")
    server.cancel("survives")
    nothing_is_left("survives")

    # A job config runs with the PATH of the server, which has no oumi on it here.
    path = f"{venv}/bin:/usr/bin:/bin"
    server.launch(project, "workers.yaml", "workers", envs={"PATH": path})
    server.until_it_trains("workers")
    processes = marked(jobs / "workers")
    sessions = {os.getsid(pid) for pid in processes}
    saw(f"workers: {len(processes)} processes in {len(sessions)} sessions")
    assert len(sessions) >= 3, "torchrun's workers are expected to be in sessions of their own"
    server.cancel("workers")
    nothing_is_left("workers")
    server.close()


def main():
    binary, venv = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        # Not a symbolic link: jobs are found by the path they were started with.
        home = Path(home).resolve()
        project, jobs = home / "project", home / "data" / "jobs"
        project.mkdir()
        write_project(project)
        saw("the tiny model and its data are made")
        servers = []

        def start():
            servers.append(Server(binary, venv, home))
            return servers[-1]

        try:
            story(start, project, jobs, venv)
        finally:
            for server in servers:
                server.kill()
            for job_dir in jobs.glob("*"):
                for pid in marked(job_dir):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            # A list has `sky` start SkyPilot's API server in this home, which is about to go.
            if Path(f"{venv}/bin/sky").exists():
                env = {**os.environ, "HOME": str(home), "PATH": f"{venv}/bin:/usr/bin:/bin"}
                subprocess.run(["sky", "api", "stop"], env=env, capture_output=True, timeout=60)
    saw("all was as it should be")


main()
