#!/usr/bin/env python3
"""How the cost of each call grows: with jobs, with the bytes of a log, with clients, and with clusters (of the tests' fake `sky`).

    cargo build --release && tests/real/growth.py

Milliseconds, the median of several calls. BIN: as for original.py.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from original import HERE, OURS, Client

AGREED = {"confirm": True, "user_confirmation": "EXECUTE"}
FAKE = HERE.parent / "support/fake.py"


def ours(folder, **more):
    return Client([OURS], Path(folder), **more)


def cancel(client, jobs):
    for job in jobs:
        client.call("cancel_job", job_id=job, force=True)


def row(what, figures):
    print(f"| {what} | " + " | ".join(f"{1e3 * figure:.1f}" for figure in figures) + " |", flush=True)


def head(what, steps):
    print(f"\n| {what} | " + " | ".join(map(str, steps)) + " |\n|---|" + "---|" * len(steps), flush=True)


def of_jobs(folder, steps=(1, 50, 200)):
    client, jobs, rows = ours(folder), [], {"run_job": [], "poll_status": [], "list_jobs": [], "cancel_job": []}
    for step in steps:
        while len(jobs) < step:
            begin = time.perf_counter()
            jobs.append(client.run("run_job", "job.yaml", allow_shared_output=True, **AGREED))
            last = time.perf_counter() - begin
        rows["run_job"].append(last)
        rows["poll_status"].append(client.seconds(50, "poll_status", job_id=jobs[0]))
        rows["list_jobs"].append(client.seconds(10, "list_jobs", limit=200))
        rows["cancel_job"].append(client.seconds(1, "cancel_job", job_id=jobs.pop(), force=True))
    cancel(client, jobs)
    head("jobs that run here", steps)
    for what, figures in rows.items():
        row(what, figures)


def of_bytes(folder, steps=(1, 100, 1000, 10_000)):
    client = ours(folder)
    job = client.run("run_job", "job.yaml", **AGREED)
    log = Path(folder, "data/jobs", job, "output.log")
    end = b"".join(b"{'loss': '1.5', 'step': %d}\na line of text between\n" % step for step in range(20_000))
    rows = {"poll_status, first": [], "poll_status, again": [], "get_job_logs, 200 lines": [], "get_job_logs, grep": []}
    for step in steps:
        with log.open("r+b") as file:
            file.truncate(step * 1_000_000 - len(end) if step > 1 else 0)
            file.seek(0, os.SEEK_END)
            file.write(end)
        rows["poll_status, first"].append(client.seconds(1, "poll_status", job_id=job))
        rows["poll_status, again"].append(client.seconds(20, "poll_status", job_id=job))
        rows["get_job_logs, 200 lines"].append(client.seconds(5, "get_job_logs", job_id=job, lines=200))
        rows["get_job_logs, grep"].append(client.seconds(1, "get_job_logs", job_id=job, grep="step.: 19999"))
    cancel(client, [job])
    head("MB of a log (all but its end is a hole)", steps)
    for what, figures in rows.items():
        row(what, figures)


def of_clients(folder, steps=(1, 4, 16)):
    clients = [ours(folder)]
    jobs = [clients[0].run("run_job", "job.yaml", allow_shared_output=True, **AGREED) for _ in range(20)]
    rows = {"poll_status": [], "list_jobs": []}
    for step in steps:
        clients += [ours(folder) for _ in range(step - len(clients))]
        for what, arguments in (("poll_status", {"job_id": jobs[0]}), ("list_jobs", {})):
            begin = time.perf_counter()
            for _ in range(20):
                for client in clients:
                    client.last_id += 1
                    call = {"name": what, "arguments": arguments}
                    client.send({"jsonrpc": "2.0", "id": client.last_id, "method": "tools/call", "params": call})
                for client in clients:
                    assert b'"result"' in client.process.stdout.readline()
            rows[what].append((time.perf_counter() - begin) / 20)
    cancel(clients[0], jobs)
    head("clients of one data folder, all asking at once", steps)
    for what, figures in rows.items():
        row(what, figures)


def of_clusters(folder, steps=(1, 10, 50)):
    figures, folder = [], Path(folder)
    sky = folder / "bin/sky"
    sky.parent.mkdir(parents=True)
    sky.write_text(f"#!/bin/sh\nexec {sys.executable} -ISX utf8 {FAKE} {folder} sky \"$@\"\n")
    sky.chmod(0o755)
    (folder / "data").mkdir()
    records = []
    for step in steps:
        for n in range(len(records), step):
            cluster = folder / f"clusters/lab{n}"
            (cluster / "jobs/1").mkdir(parents=True)
            made = {"cloud": "GCP", "status": "UP", "launched_at": "1795547289", "hash": str(n)}
            job = {"jobs/1/name": f"job{n}", "jobs/1/status": "RUNNING", "jobs/1/submitted_at": "1795547289"}
            for name, text in {**made, **job, "jobs/1/start_at": "1795547289"}.items():
                (cluster / name).write_text(text)
            fields = {"command": "train", "config_path": "job.yaml", "cloud": "gcp", "model_name": "m", "output_dir": ""}
            now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            records.append({"job_id": f"job{n}", "cluster_name": f"lab{n}", "oumi_job_id": "1", "submit_time": now, **fields})
        (folder / "data/oumi-jobs.json").write_text(json.dumps(records))
        client = ours(folder, OUMI_MCP_SKY=str(sky), OUMI_MCP_SKY_API="off")
        figures.append(client.seconds(3, "list_jobs", limit=200))
        client.process.stdin.close()
        client.process.wait()
    head("clusters with a job, by a `sky` that answers at once", steps)
    row("list_jobs", figures)


for part in (of_jobs, of_bytes, of_clients, of_clusters):
    with tempfile.TemporaryDirectory() as folder:
        part(folder)
