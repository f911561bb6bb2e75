"""A fake of SkyPilot's API server over FOLDER.  Answers in the forms of captures-http what the fake `sky` of FOLDER says (fake.py),
which a fork of it runs for each request; so state, knobs and calls are those of the program. Its port is in FOLDER/api-port, the
requests are in FOLDER/api-calls, one a line. The cost report is FOLDER/costs.

Knobs of its own, FOLDER/knobs/api.<knob>:
  health     the body of /api/health
  status     the status of each answer but the health, such as 503
  nonsense   the body of each result
  die        each connection ends in the middle of the result
  mute       nothing is answered, not even the health"""

import json
import os
import re
import signal
import socketserver
import sys
import threading
import time
import traceback

import fake

HERE = os.path.dirname(os.path.abspath(__file__))
requests = {}


def new_id():
    return os.urandom(16).hex()


def knob(name):
    try:
        with open(f"{FOLDER}/knobs/api.{name}", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def captured(name):
    """The last body of a capture."""
    with open(f"{HERE}/captures-http/{name}.http", encoding="utf-8") as file:
        return json.loads(re.findall(r"^[\[{].*$", file.read(), re.M)[-1])


def array(name, row):
    """A row of the catalog as the API writes it: the fields in their order."""
    fields = "cloud instance_type - accelerator_count cpu_count device_memory memory price spot_price region".split()
    return [name if field == "-" else row.get(field) for field in fields]


def run_in_fork(argv, is_fake, out, err):
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, 1024)
        os.environ["COLUMNS"] = "4096"
        if is_fake:
            fake.main(FOLDER, "sky", *argv[1:])
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execv(argv[0], argv)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    os._exit(code)


class Run:
    """A request: the fake `sky` that answers it."""

    def __init__(self, path, body):
        self.path, self.body, cluster = path, body, body.get("cluster_name")
        sky, minutes = f"{FOLDER}/bin/sky", body.get("idle_minutes")
        autostop = ["--cancel"] if minutes == -1 else ["-i", str(minutes), *(["--down"] if body.get("down") else [])]
        wanted = ":".join(str(part) for part in (body.get("name_filter"), body.get("quantity_filter")) if part)
        argv = {
            "/cost_report": ["/bin/cat", f"{FOLDER}/costs"],
            "/status": [sky, "status", *(body.get("cluster_names") or []), "-o", "json"],
            "/queue": [sky, "queue", cluster, *(["-u"] if body.get("all_users") else []), "-o", "json"],
            "/logs": [sky, "logs", cluster, str(body.get("job_id")), "--no-follow", "--tail", str(body.get("tail"))],
            "/cancel": [sky, "cancel", "-y", cluster, *map(str, body.get("job_ids") or [])],
            "/down": [sky, "down", "-y", cluster],
            "/stop": [sky, "stop", "-y", cluster],
            "/autostop": [sky, "autostop", cluster, "-y", *autostop],
            "/list_accelerators": [sky, "gpus", "list", wanted, "--infra", str(body.get("clouds")), "-o", "json",
                                   *(["--all-regions"] if body.get("all_regions") else [])],
        }[path]
        with open(argv[0], "rb") as file:
            is_fake = b"import fake" in file.read()  # unless a test put another in its place
        out, err = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            run_in_fork(argv, is_fake, out[1], err[1])
        os.close(out[1])
        os.close(err[1])
        self.ended, self.output, self.code = threading.Event(), ("", ""), None
        threading.Thread(target=self.read, args=(out[0], err[0]), daemon=True).start()

    def read(self, *ends):
        output = []
        for end in ends:
            with open(end, "rb") as file:
                output.append(file.read().decode("utf-8", "replace"))
        self.output, self.code = output, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.ended.set()

    def kill(self):
        if not self.ended.is_set():
            os.kill(self.pid, signal.SIGKILL)

    def result(self):
        """Status and body of /api/get."""
        self.ended.wait()
        (out, err), code, cluster = self.output, self.code, self.body.get("cluster_name")
        raised = re.search(r"(?:sky\.exceptions\.)?(\w+(?:Error|NotExist)): (?:\x1b\[\d+m)?(.*?)(?:\x1b\[0m)?(?=\n|$)", out + err)
        if self.path == "/logs":
            return self.failed(raised) if code == 1 else self.succeeded(code)
        if self.path == "/cancel":
            return self.failed(raised) if code else self.succeeded(None)
        if self.path in ("/down", "/stop", "/autostop"):
            if "not found" in out:
                return self.failed(["", "ClusterDoesNotExist", f"Cluster '{cluster}' does not exist."])
            skipped = re.search(r"Stopping cluster.*skipped.*\n.*", out)
            return self.failed(["", "NotSupportedError", skipped[0]]) if skipped else self.succeeded(None)
        try:
            value = json.loads(out[re.search(r"^[\[{]", out, re.M).start():]) if code == 0 else None
        except (ValueError, AttributeError):
            value = None
        if self.path == "/list_accelerators" and code:
            return self.failed(["", "ConnectionError", out])
        if value is None or (self.path in ("/queue", "/list_accelerators")) != isinstance(value, dict):
            return 200, "Something [else] {entirely} was said."
        if self.path == "/list_accelerators":
            return self.succeeded({name: [array(name, row) for row in rows] for name, rows in value.items()})
        if self.path == "/cost_report":
            return self.succeeded(value)
        if self.path == "/queue":
            return self.succeeded(value[cluster]) if cluster in value else self.failed(raised)
        for row in value:
            row["last_creation_yaml"] = "envs: {TOKEN: secret-of-a-body}"
        return self.succeeded(value)

    def succeeded(self, value):
        return 200, json.dumps({**captured("queue"), "return_value": json.dumps(value)})

    def failed(self, raised):
        if not raised:
            return 500, "Internal Server Error"
        body = captured("queue-unknown")
        body["detail"]["error"] = json.dumps({"object": "<pickle>", "type": raised[1], "message": f"\x1b[33m{raised[2]}\x1b[0m"})
        return 500, json.dumps(body)


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.goes_on = True
        while self.goes_on and (line := self.rfile.readline().decode()):
            self.command, self.path, _ = line.split()
            self.headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(": ")
                self.headers[name.lower()] = value
            self.do_GET() if self.command == "GET" else self.do_POST()

    def answer(self, status, body, id=None, kind="application/json"):
        body, dies = body.encode(), id is None and knob("die") is not None
        head = [f"HTTP/1.1 {status} -", f"content-type: {kind}", "x-skypilot-api-version: 50", f"content-length: {len(body)}",
                f"x-skypilot-request-id: {id or new_id()}", "", ""]
        self.wfile.write("\r\n".join(head).encode() + (body[:len(body) // 2] if dies else body))
        self.goes_on = not dies

    def note(self, body=""):
        with open(f"{FOLDER}/api-calls", "a", encoding="utf-8") as calls:
            calls.write(f"{self.command} {self.path} {self.headers.get('x-skypilot-api-version')} {body}\n")
        while knob("mute") is not None and os.path.isdir(FOLDER):
            time.sleep(0.02)

    def do_GET(self):
        self.note()
        if self.path == "/api/health":
            return self.answer(200, knob("health") or json.dumps(captured("health")), "health")
        run = requests.get(re.search(r"request_id=([\w-]*)|$", self.path)[1])
        if not run:
            return self.answer(404, '{"detail":"Not Found"}')
        if self.path.startswith("/api/stream"):
            run.ended.wait()
            return self.answer(200, run.output[0] if run.path == "/cancel" else "", "stream", "text/plain")
        status, body = run.result()
        self.answer(int(knob("status") or status), knob("nonsense") or body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        sent = {name: value for name, value in body.items() if name != "env_vars"}
        self.note(json.dumps({**sent, "env_vars": sorted(body["env_vars"])}))
        id = new_id()
        if self.path == "/api/cancel":
            for run in filter(None, map(requests.get, body["request_ids"])):
                run.kill()
            return self.answer(200, "null", id)
        run = requests[id] = Run(self.path, body)
        if self.path != "/logs":
            return self.answer(200, "null", id)
        run.ended.wait()
        heartbeat = "<sky-payload>\"<rich_heartbeat></rich_heartbeat>\"</sky-payload>\n"
        self.answer(200, heartbeat + run.output[0].partition("\n")[2], id, "text/plain; charset=utf-8")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, request_queue_size = True, 128


def main(folder):
    global FOLDER
    FOLDER = folder
    server = Server(("127.0.0.1", 0), Handler)
    with open(f"{FOLDER}/api-port.new", "w", encoding="utf-8") as file:
        file.write(str(server.server_address[1]))
    os.rename(f"{FOLDER}/api-port.new", f"{FOLDER}/api-port")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.path.isdir(FOLDER):
        time.sleep(0.1)
