"""Times this server against SkyPilot's own SDK, both over the API server that is up: speed.py BINARY CLUSTER JOB, with the `python` of an
environment that has SkyPilot. Each is asked in turn, five times, in one process each; the medians count. Prints `skipped` where
there is no API server."""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from server import Server

BINARY, CLUSTER, JOB = sys.argv[1:]
ROUNDS = 5
VENV = os.path.dirname(os.path.dirname(sys.executable))


def seconds_of(run):
    start = time.monotonic()
    run()
    return time.monotonic() - start


def processor_time(pid):
    fields = open(f"/proc/{pid}/stat", encoding="utf-8").read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def main():
    if subprocess.run(["curl", "-sfm", "2", "http://127.0.0.1:46580/api/health"], stdout=subprocess.DEVNULL).returncode:
        print("skipped: SkyPilot's API server is not up")
        return
    os.environ["SKYPILOT_DEBUG"] = "0"
    from sky import StatusRefreshMode
    from sky.client import sdk

    def queue():
        return sdk.get(sdk.queue(CLUSTER))

    def listing():
        clusters = sdk.get(sdk.status(None, StatusRefreshMode.NONE, _include_credentials=False))
        return [sdk.get(request) for request in [sdk.queue(cluster["name"]) for cluster in clusters]]

    with tempfile.TemporaryDirectory() as home:
        more = {"HOME": os.environ["HOME"], "OUMI_MCP_SKY": f"{VENV}/bin/sky"}
        server = Server(BINARY, VENV, pathlib.Path(home), **more)
        name = {"oumi_job_id": JOB, "cloud": "sky-slurm", "cluster_name": CLUSTER}
        calls = {
            "list_jobs": (lambda: server.call("list_jobs"), listing),
            "poll_status": (lambda: server.call("poll_status", **name), queue),
        }
        for call, (own, floor) in calls.items():
            own(), floor()
            before = processor_time(server.process.pid)
            times = [(seconds_of(own), seconds_of(floor)) for _ in range(ROUNDS)]
            spent = (processor_time(server.process.pid) - before) / ROUNDS
            ours, theirs = (statistics.median(column) for column in zip(*times))
            print(f"{call:12} {ours:6.2f} s   SDK {theirs:6.2f} s   {ours / theirs:5.2f} ×   processor time {spent:.3f} s")


main()
