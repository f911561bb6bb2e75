"""Real cloud jobs through the server over stdio: cloud.py <server binary> <virtual environment> <cloud> <cluster>. See cloud.sh.

Needs nothing but Python. Prints what was seen with the seconds since the start; any wrong answer ends it with an error, and the
jobs and the cluster are ended.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from server import Server, saw, until

SECRET = "it's $5 \"a secret\" of ${HOME}"
LONG = "echo secret=$MY_SECRET\nfor i in $(seq 2000); do echo step $i; sleep 1; done\n"
SHORT = "test -f short.yaml || exit 1  # Of the project.\nfor i in 1 2 3; do echo short step $i; done\n"


def write_project(project, cloud):
    for name, run in (("long", LONG), ("short", SHORT)):
        config = {"name": name, "resources": {"cloud": cloud}, "run": run}
        if cloud == "sky-slurm":
            config["resources"] |= {"cpus": "1", "memory": "1"}
            config["setup"] = "echo the setup ran\n"
        (project / f"{name}.yaml").write_text(json.dumps(config))


def known(server, job_id):
    """How the job is, once the programs have answered: they are slow, and the server says so."""
    def asked():
        answer = server.call("poll_status", job_id=job_id)
        return answer["success"] and answer

    return until(f"{job_id} can be asked about", asked, 600)


def until_it_is(server, job_id, *wanted):
    status = until(f"{job_id} is {wanted}", lambda: (found := known(server, job_id))["state"] in wanted and found, 900)
    saw(f"{job_id}: {status['status']} ({status['state']}), id {status['oumi_job_id']} on {status['cluster']}")
    for warning in status.get("warnings", []):
        saw(f"{job_id}: warned: {warning}")
    return status


def log_with(server, text, **job):
    def read():
        answer = server.call("get_job_logs", lines=50, **job)
        return text in answer["logs"] and answer["logs"]

    return until(f"{text!r} is in the log of {job}", read, 600)


def story(start, project, cloud, cluster):
    on = {"cloud": cloud, "cluster_name": cluster}
    server = start()
    preview = server.call("run_job", config_path="long.yaml", command="train", client_cwd=str(project),
                          envs={"MY_SECRET": SECRET}, **on)  # fmt: skip
    assert preview["job_config"]["envs"] == {"MY_SECRET": "***"}, preview
    answer = server.launch(project, "long.yaml", "first", envs={"MY_SECRET": SECRET}, **on)
    assert answer["status"] == "launching" and not answer.get("launch_confirmed"), answer
    assert server.poll("first")["state"] == "PENDING"
    server.kill()
    saw("the server was killed with SIGKILL in the middle of the launch")
    time.sleep(3)
    server = start()
    first = until_it_is(server, "first", "RUNNING")
    log_with(server, "step ", job_id="first")
    logs = log_with(server, "step ", job_id="first")
    assert SECRET not in logs, logs
    saw("first: its log is read, and the secret is hidden in it")
    direct = {"oumi_job_id": first["oumi_job_id"], "cloud": cloud, "cluster_name": first["cluster"]}
    log_with(server, "step ", **direct)

    answer = server.call("cancel_job", job_id="first")
    assert answer["success"], answer
    saw(f"first: cancel: {answer['message']}")
    until_it_is(server, "first", "CANCELLED")
    # While the programs have not answered, it is said that the cancel goes on.
    answer = until("a second cancel finds it cancelled", lambda: (
        (found := server.call("cancel_job", job_id="first"))["success"] and found.get("is_done") and found
    ), 900)  # fmt: skip
    assert answer["state"] == "CANCELLED", answer
    saw(f"first: a second cancel finds it cancelled: {answer.get('message')}")

    # After the first: a cluster of one CPU runs one job at a time.
    server.launch(project, "short.yaml", "second", cloud=cloud, cluster_name=first["cluster"])
    until_it_is(server, "second", "SUCCEEDED")
    log_with(server, "short step 3", job_id="second")

    rows = until("both are listed", lambda: len(
        found := [row for row in server.call("list_jobs")["jobs"] if row["job_id"] in ("first", "second")]
    ) == 2 and found, 600)  # fmt: skip
    saw(f"listed: {[(row['job_id'], row['status'], row['cluster']) for row in rows]}")

    if cloud == "sky-slurm":
        answer = server.call("stop_cluster", cloud=cloud, cluster_name=cluster)
        saw(f"stop_cluster: {answer.get('error') or answer['message']}")
        assert not server.call("down_cluster", cloud=cloud, cluster_name=cluster)["success"]
        answer = server.call("down_cluster", cloud=cloud, cluster_name=cluster, confirm=True, user_confirmation="DOWN")
        saw(f"down_cluster: {answer.get('error') or answer['message']}")
        assert answer["success"], answer
        gone = until("the cluster is gone", lambda: (found := known(server, "second"))["status"] == "cluster_gone" and found, 600)
        assert (gone["state"], gone["is_done"]) == ("UNKNOWN", True), gone
        saw(f"second: {gone['status']}: {gone['message']}")
    server.close()


def main():
    binary, venv, cloud, cluster = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        home = Path(home).resolve()
        project = home / "project"
        project.mkdir()
        write_project(project, cloud)
        servers = []

        def start():
            # Oumi and SkyPilot find their keys and their own state in the real home.
            more = {"HOME": os.environ["HOME"], "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
            servers.append(Server(binary, venv, home, **more, OUMI_MCP_SKY=f"{venv}/bin/sky"))
            return servers[-1]

        try:
            story(start, project, cloud, cluster)
        except BaseException:
            # Nothing is left that costs: not on this machine, but on another it would.
            server = start()
            saw(server.call("cancel_job", job_id="first"))
            if cloud == "sky-slurm":
                saw(server.call("down_cluster", cloud=cloud, cluster_name=cluster, confirm=True, user_confirmation="DOWN"))
            raise
        finally:
            for server in servers:
                server.kill()
    saw("all was as it should be")


main()
