"""A fake `oumi`, `sky` and `ssh`: fake.py FOLDER oumi|sky|ssh ARGUMENT…  Replays what the real ones printed (captures/).

The state is the files of FOLDER:
  calls                       one line a call, fields parted by tabs: program, pid, COLUMNS, OUMI_SLURM_CONNECTIONS, arguments
  staged-<n>.yaml             the config of the n-th `oumi launch up`
  launcher-environment        the names of the variables of the last one
  clusters/<name>/            a cluster of SkyPilot: status, cloud, region, machines, launched_at, hash, autostop, to_down, price, and user where it is another's
  hosts/<user@host>/          a cluster of Slurm; connected: Oumi has left a connection open
  …/jobs/<id>/                a job: name, status, run, submitted_at, start_at, end_at, resources, setup_log, log
  api_down                    the first call of SkyPilot starts its API server
  first_log                   (a knob) the beginning of the log of every job
  knobs/<command>.<knob>      <command> is such as oumi-up or sky-queue; `oumi-up@<job>` is for the launch of that job alone,
                              `sky-queue@<cluster>` for that cluster where it is named last, `oumi-status@<cluster>` for its
    times     for how many calls the knobs are
    gate      waits until there is <command>.open; `late` does so when it has looked, and makes late-<command>
    hang      never ends, even on TERM; makes hanging-<command>
    replay    prints a capture instead
    garbage   half, text, empty, bytes or huge; exit code 0
    crash     is killed in the middle of the output; oumi-up: before-job or after-job
    block     oumi-up: makes blocked-oumi-up, and waits until there is <command>.go, between cluster and job, or after-job
    prints    oumi-up: what a script of the user prints into it
    noop      cancel: does nothing, and says that it did
A program that waits ends when FOLDER is gone."""

import _signal as signal
import os
import sys
import time
from _json import encode_basestring


class Late:
    """A module that is imported when it is first used. These take longer than all that most calls do."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        return getattr(__import__(self.name), attribute)


json, re = Late("json"), Late("re")
CAPTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures")
GOES_ON = ["INIT", "PENDING", "SETTING_UP", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED"]
CANNOT_STOP = ["Slurm", "Lambda", "RunPod", "Kubernetes"]
ESC = "\x1b"
code, held = 0, None


# ---- files, output and knobs

def read(path, default=None):
    try:
        with open(os.path.join(FOLDER, path), encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except OSError:
        return default


def write(path, text):
    path = os.path.join(FOLDER, path)
    with open(f"{path}.{os.getpid()}", "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(str(text))
    os.rename(f"{path}.{os.getpid()}", path)


def exists(path):
    return os.path.exists(os.path.join(FOLDER, path))


def listed(path):
    return sorted(os.listdir(os.path.join(FOLDER, path))) if exists(path) else []


def remove(path):
    for root, folders, files in os.walk(os.path.join(FOLDER, path), topdown=False):
        for name in files:
            os.remove(os.path.join(root, name))
        os.rmdir(root)


def say(text, descriptor=1):
    data = text.encode("utf-8", "surrogateescape")
    if held is not None and descriptor == 1:
        held.append(data)
    while data and (held is None or descriptor == 2):
        data = data[os.write(descriptor, data):]


def capture(name, end="out"):
    with open(os.path.join(CAPTURES, f"{name}.{end}"), encoding="utf-8", newline="") as file:
        return file.read()


def lines(name, start, end):
    """The lines of a capture from the one that holds `start` to the next that holds `end`."""
    return re.search(f"^[^\n]*{start}.*?{end}[^\n]*\n", capture(name), re.M | re.S).group(0)


def loads(text):
    """A JSON text of a capture or of the state."""
    return eval(text, {"null": None, "true": True, "false": False})


def dumps(value, end="\n"):
    """What the module json makes of it with indent=2 and ensure_ascii=False."""
    start = end + "  "
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict) and value:
        return "{" + ",".join(f"{start}{encode_basestring(key)}: {dumps(value[key], start)}" for key in value) + end + "}"
    if isinstance(value, list) and value:
        return "[" + ",".join(start + dumps(item, start) for item in value) + end + "]"
    return {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))


def tick():
    if not os.path.isdir(FOLDER):
        sys.exit(1)
    time.sleep(0.02)


def wait_for(path):
    while not exists(path):
        tick()


class Knobs:
    def __init__(self, command, job=None):
        self.command = command
        self.prefixes = [f"knobs/{command}@{job}.", f"knobs/{command}."]
        left = read(self.prefixes[1] + "times")
        if left == "0":
            self.prefixes = []
        elif left:
            write(self.prefixes[1] + "times", int(left) - 1)

    def get(self, knob):
        return next((read(prefix + knob) for prefix in self.prefixes if exists(prefix + knob)), None)

    def wait_for(self, knob):
        while self.get(knob) is None:
            tick()

    def block(self, point):
        if self.get("block") in ([point] if point else ["", "middle"]):
            write(f"blocked-{self.command}", "")
            self.wait_for("go")
        if self.get("crash") == (point or "before-job"):
            os.kill(os.getpid(), signal.SIGKILL)


def output_of(run):
    global held
    held = []
    run()
    data, held = b"".join(held), None
    return data


def replay(name):
    global code
    say(capture(name))
    if os.path.exists(os.path.join(CAPTURES, name + ".err")):
        say(capture(name, "err"), 2)
    code = int(re.search(r"^exit: *(\d+)", capture(name, "meta"), re.M).group(1))


def fail(name, message):
    """Prints the traceback of a capture with another exception."""
    global code
    code = 1
    say(re.sub(r"(.*^)[A-Za-z.]+(?:Error|Exception): .*?\n\n", lambda m: f"{m[1]}{message}\n\n", capture(name), flags=re.M | re.S))


def perform(run):
    garbage = knobs.get("garbage")
    if knobs.get("gate") is not None:
        knobs.wait_for("open")
    if knobs.get("hang") is not None:
        for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        write(f"hanging-{knobs.command}", "")
        while True:
            tick()
    if knobs.get("replay"):
        replay(knobs.get("replay"))
    elif garbage in ("bytes", "huge"):
        os.write(1, os.urandom(65536)) if garbage == "bytes" else say(('{"x": [1, 2, 3' + ' ' * 100000 + '\n') * 170)
    elif garbage in ("text", "empty"):
        say("Something [else] {entirely} was said.\n" if garbage == "text" else "")
    elif garbage == "half" or (knobs.get("crash") is not None and knobs.command != "oumi-up"):
        data = output_of(run)
        os.write(1, data[:len(data) // 2])
        garbage or os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(0)
    elif knobs.get("late") is not None:
        data = output_of(run)
        write(f"late-{knobs.command}", "")
        wait_for(f"knobs/{knobs.command}.open")
        say(data.decode("utf-8", "surrogateescape"))
    else:
        run()
    os._exit(code)  # at once: what Python does at its end is an eighth of a call


# ---- clusters and jobs

def now():
    return str(int(time.time()))


def is_cluster(name):
    return bool(name) and exists(f"clusters/{name}")


def status_of(cluster):
    return read(f"clusters/{cluster}/status", "UP")


def job_ids(owner):
    return sorted((int(id) for id in listed(f"{owner}/jobs") if id.isdigit()), reverse=True)


def job_status(job):
    return read(f"{job}/status", "RUNNING")


def cancel_unless_done(job):
    if not exists(job) or job_status(job) not in GOES_ON:
        return False
    if knobs.get("noop") is None:
        write(f"{job}/end_at", now())
        write(f"{job}/status", "CANCELLED")
    return True


def add_job(owner, name, resources, run="sky-0"):
    made = f"new-{os.getpid()}"
    os.makedirs(os.path.join(FOLDER, made))
    os.makedirs(os.path.join(FOLDER, owner, "jobs"), exist_ok=True)
    fields = {"name": name, "resources": resources, "submitted_at": now(), "start_at": now(), "status": "RUNNING", "run": run}
    for field, text in [*fields.items(), ("log", read("knobs/first_log", ""))]:
        write(f"{made}/{field}", text)
    while True:
        id = max(job_ids(owner), default=0) + 1
        try:
            os.rename(os.path.join(FOLDER, made), os.path.join(FOLDER, owner, "jobs", str(id)))
            return id
        except OSError:
            pass


def start_api_server():
    if exists("api_down"):
        say("".join(capture("sky/api-start").splitlines(True)[:2]))
        try:
            os.remove(os.path.join(FOLDER, "api_down"))
        except FileNotFoundError:  # another call was first
            pass


# ---- sky

def not_up(cluster, doing, colours, descriptor=1):
    on, off = (f"{ESC}[33m", f"{ESC}[0m") if colours else ("", "")
    status, hint = status_of(cluster), ""
    if status == "INIT":
        hint = f" Wait for a launch to finish, or use this command to try to transition the cluster to UP: sky start {cluster}"
    say(f"sky.exceptions.ClusterNotUpError: {on}{doing}: skipped for cluster '{cluster}' (status: {status}). "
        f"It is only allowed for UP and AUTOSTOPPING clusters.{off}{hint}\n", descriptor)


def own_clusters():
    return [cluster for cluster in listed("clusters") if not exists(f"clusters/{cluster}/user")]


def sky_queue(clusters):
    clusters = clusters or own_clusters()
    say(f"Fetching job queue for: {', '.join(clusters)}\n")
    queue, template = {}, loads(capture("sky/queue-json").split("\n", 1)[1])["skyc1"][0]
    for cluster in clusters:
        if is_cluster(cluster) and status_of(cluster) == "UP":
            jobs = {id: f"clusters/{cluster}/jobs/{id}" for id in job_ids(f"clusters/{cluster}")}
            queue[cluster] = [queue_row(template, job, id) for id, job in jobs.items() if "-u" in options or not exists(f"{job}/user")]
            continue
        say(f"Failed to get the job queue for cluster '{cluster}'.\n  ")
        if is_cluster(cluster):
            not_up(cluster, "Getting the job queue", False)
        else:
            say(f"sky.exceptions.ClusterDoesNotExist: Cluster '{cluster}' does not exist.\n")
    say(dumps(queue) + "\n")


def queue_row(template, job, id):
    times = {key: loads(read(f"{job}/{key}", "null")) for key in ("submitted_at", "start_at", "end_at")}
    texts = {"job_name": read(f"{job}/name", ""), "resources": read(f"{job}/resources", "1x[CPU:1]")}
    log_path = f"~/sky_logs/{read(f'{job}/run', 'sky-0')}"
    user = {"username": read(f"{job}/user", "root"), "user_hash": read(f"{job}/user", template["user_hash"])}
    return {**template, **user, "job_id": id, **texts, **times, "status": job_status(job), "log_path": log_path}


def sky_status(names):
    template, rows = loads(capture("sky/status-up-json"))[0], []
    for cluster in filter(is_cluster, names) if names else own_clusters():
        of = lambda field, default: read(f"clusters/{cluster}/{field}", default)
        row = {**template, "name": cluster, "status": status_of(cluster), "cloud": of("cloud", "Slurm")}
        row.update(launched_at=loads(of("launched_at", "null")), autostop=int(of("autostop", "-1")))
        row["to_down"] = of("to_down", "") == "True"
        row.update(cluster_hash=of("hash", None), user_name=of("user", "root"))
        machines = of("machines", row["resources_str_full"])
        row.update(region=of("region", row["region"]), resources_str_full=machines, nodes=int(machines.split("x")[0]))
        if of("price", ""):
            row["hourly_price"] = float(of("price", ""))
        rows.append(row)
    say(dumps(rows) + "\n")


def sky_gpus(words):
    name, _, count = words[1].partition(":")
    cloud, _, region = options["--infra"].partition("/")
    if cloud not in ("aws", "lambda"):
        return replay("sky/gpus-disabled-cloud")
    found, cheapest = catalog(name, count, cloud), {}
    for accelerator, rows in found.items():
        rows = [row for row in rows if re.search(region, row["region"])]
        if "--all-regions" not in options:
            # One a type of machine: the lowest on demand, of these the lowest spot.
            rows.sort(key=lambda row: (row["price"], row["spot_price"] or 1e9), reverse=True)
            rows = list({row["instance_type"]: row for row in rows}.values())
        cheapest[accelerator] = rows
    say(json.dumps(cheapest, indent=2).replace("-1.0", "NaN") + "\n")


def catalog(name, count, cloud):
    found = {}
    for of in ("aws-a100x8-all-regions", "aws-h100x8", "lambda-a100x8"):
        for accelerator, rows in json.loads(capture(f"sky/gpus-{of}")).items():
            rows = [row for row in rows if row["cloud"].lower() == cloud and count in ("", str(int(row["accelerator_count"])))]
            if rows and re.search(name, accelerator, re.I):
                found.setdefault(accelerator, []).extend(rows)
    return found


def sky_log(job, id, follows=False):
    """The whole log of a job on a cluster of SkyPilot, in colour."""
    heading, failed_setup = (capture(f"sky/{name}").splitlines(True) for name in ("logs-nofollow-failed", "logs-failsetup"))
    status, name = job_status(job), read(f"{job}/name")
    if status in ("INIT", "PENDING"):
        return heading[1]
    prefixed = lambda text, prefix: re.sub(r"(?m)^(?=.)", f"{ESC}[36m({prefix})${ESC}[0m ".replace("$", ""), text)
    log = read(f"{job}/log", "")
    # SkyPilot 0.12 prefixes what ends in a carriage return like a line, and reads it back as one unless it follows the log.
    text = prefixed(read(f"{job}/setup_log", ""), "setup pid=2548") + prefixed(log if follows else log.replace("\r", "\n"), f"{name}, pid=28808")
    end = {"FAILED": heading[4:6], "FAILED_SETUP": failed_setup[4:8]}.get(status, [])
    end = "".join(end).replace("Job 2 ", f"Job {id} ").replace("Job 1's", f"Job {id}'s")
    return heading[1] + heading[2] + text + end


def sky_logs(arguments):
    global code
    cluster, id = arguments
    job = f"clusters/{cluster}/jobs/{id}"
    say(f"{ESC}[33mTailing logs of job {id} on cluster '{cluster}'...{ESC}[0m\n")
    if not is_cluster(cluster):
        code = 1
        say(f"sky.exceptions.ClusterDoesNotExist: {ESC}[33mCluster '{cluster}' does not exist.{ESC}[0m\n", 2)
    elif status_of(cluster) != "UP":
        code = 1
        not_up(cluster, "Tailing logs", True, 2)
    elif not exists(job):
        code = 102
        say(f"Job {id} not found (see `sky queue`).\nsrun: error: vm: task 0: Exited with exit code 102\n")
    else:
        say("".join(sky_log(job, id).splitlines(True)[-int(options.get("--tail", 1000)):]))
        status = job_status(job)
        if status not in GOES_ON:
            code = {"SUCCEEDED": 0, "CANCELLED": 103}.get(status, 100)
            say(f"{ESC}[0m{ESC}[32m✓ Job finished (status: {status}).{ESC}[0m{ESC}[0m\n")
            code and say(f"srun: error: vm: task 0: Exited with exit code {code}\n")


def sky_api(_):
    replay("sky/api-info-json")


def sky_check(_):
    replay("sky/repro-check")


def oumi_help():
    say("Usage: oumi [OPTIONS] COMMAND [ARGS]...\n")


def sky_cancel(arguments):
    global code
    cluster, *ids = arguments
    if not is_cluster(cluster):
        code = 2
        return say(capture("sky/cancel-nocluster", "err").replace("nosuch", cluster), 2)
    if status_of(cluster) != "UP":
        code = 1
        return not_up(cluster, "Cancelling jobs", True, 2)
    say(f"{ESC}[33mCancelling jobs ({', '.join(ids)}) on cluster '{cluster}'...{ESC}[0m\n")
    say_cancelled([id for id in ids if cancel_unless_done(f"clusters/{cluster}/jobs/{id}")])


def sky_autostop(clusters):
    cluster = clusters[0]
    if not is_cluster(cluster):
        return say(capture("sky/autostop-unknown").replace("nope", cluster))
    for field, value in [("autostop", options.get("-i", "-1")), ("to_down", "--down" in options)]:
        write(f"clusters/{cluster}/{field}", value)
    say(capture("sky/autostop-down-slurm").replace("h1", cluster))


def say_cancelled(ids):
    say(f"Cancelled job ID(s): {', '.join(ids)}\n" if ids else "No jobs cancelled. They may be in terminal states.\n")


def sky_down(clusters):
    teardown(clusters[0], "sky/down", "skyc3", lambda: remove(f"clusters/{clusters[0]}"))


def sky_stop(clusters):
    if read(f"clusters/{clusters[0]}/cloud", "Slurm") in CANNOT_STOP:
        teardown(clusters[0], "sky/stop-unsupported", "lam1", lambda: None)
    else:
        teardown(clusters[0], "sky/stop", "lam1", lambda: write(f"clusters/{clusters[0]}/status", "STOPPED"))


def teardown(cluster, name, captured, change):
    if not is_cluster(cluster):
        return say(capture("sky/down-nocluster").replace("nosuch", cluster))
    change()
    said = capture(name).replace(captured, cluster).splitlines(True)
    say("".join(line for line in said if "has no provision yaml" not in line))


# ---- oumi

def banner():
    say(capture("oumi-slurm/cancel-inflight"))


def oumi_up():
    config, cluster = options.get("-c"), options.get("--cluster", "")
    n = 1
    while True:
        try:
            os.close(os.open(os.path.join(FOLDER, f"staged-{n}.yaml"), os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError:
            n += 1
    write(f"staged-{n}.yaml", read(os.path.abspath(config)))
    if document["resources"]["cloud"] == "slurm":
        up_slurm(document, cluster)
    else:
        up_sky(document, cluster)


def up_slurm(document, cluster):
    if document.get("user") != cluster.split("@")[0]:
        return fail("oumi-slurm/up-no-cluster", f"ValueError: Invalid cluster name: `{cluster}`. "
                    f"User must match the provided job user: `{document.get('user')}`.")
    banner()
    if cluster in CONNECTIONS:
        say(f"Found an existing cluster: {cluster}.\n")
    say(lines("oumi-slurm/up-detach-existing-cluster", "Running rsync", "Rsync command").replace("root@localhost", cluster))
    knobs.block("")
    queued(cluster, add_job(f"hosts/{cluster}", document["name"], ""))


def up_sky(document, cluster):
    owner, resources = f"clusters/{cluster}", f"1x[{document['resources'].get('accelerators') or 'CPU:1'}]"
    if is_cluster(cluster) and status_of(cluster) != "UP":
        return fail("oumi-slurm/up-no-cluster", f"sky.exceptions.ClusterNotUpError: Cluster '{cluster}' is not up.")
    banner()
    if is_cluster(cluster):
        launch = "oumi-sky/up-blocking"
        start_api_server()
        say(f"Found an existing cluster: {cluster}.\n")
        knobs.block("")
    else:
        launch, cloud = "oumi-sky/up-detach-new", document["resources"]["cloud"]
        cloud = {"sky-slurm": "Slurm", "lambda": "Lambda", "runpod": "RunPod", "k8s": "Kubernetes"}.get(cloud, cloud.upper())
        os.makedirs(os.path.join(FOLDER, owner))
        for field, text in [("status", "INIT"), ("cloud", cloud), ("launched_at", now()), ("hash", os.urandom(16).hex())]:
            write(f"{owner}/{field}", text)
        name, _, count = (document["resources"].get("accelerators") or "CPU").partition(":")
        found = [row for rows in catalog(f"^{name}$", count or "1", cloud.lower()).values() for row in rows]
        if found:
            spot = "[spot]" if document["resources"].get("use_spot") else ""
            write(f"{owner}/machines", f"{document.get('num_nodes') or 1}x{spot}(gpus={name}:{count}, {found[0]['instance_type']}, disk=256)")
            write(f"{owner}/region", found[0]["region"])
        start_api_server()
        autostop = lines(launch, "Will not set autostop", "").replace("Slurm does", f"{cloud} does")
        if cloud not in CANNOT_STOP:
            write(f"{owner}/autostop", 60)
            autostop = re.sub("] [^]]*$", "] No idle_minutes_to_autostop provided. Defaulting to 60 minutes.\n", autostop)
        begins = lines(launch, "Running on cluster", "Launching on")
        say(autostop + begins.replace("skyc2", cluster).replace("Slurm labslurm", f"{cloud} labslurm"))
        knobs.block("")
        write(f"{owner}/status", "UP")
        say(lines(launch, "Instance is up", "Cluster launched").replace("skyc2", cluster))
    run = time.strftime("sky-%Y-%m-%d-%H-%M-%S-") + f"{time.time_ns() // 1000 % 1000000:06}"
    say(knobs.get("prints") or "")
    id = add_job(owner, document["name"], resources, run)
    submitted = re.sub("sky-[0-9-]+", run, lines(launch, "Syncing files", "Job submitted"))
    say(re.sub("ID: .*", f"ID: {id}", submitted) + "\n")
    knobs.block("after-job")
    queued(cluster, id)


def queued(cluster, id):
    knobs.get("crash") is not None and os.kill(os.getpid(), signal.SIGKILL)
    say(f"Job {id} queued on cluster {cluster}.\nRunning job {id} in detached mode.\n")


def oumi_logs():
    cloud, cluster, id = options["--cloud"], options["--cluster"], options["--job-id"]
    job = f"hosts/{cluster}/jobs/{id}" if cloud == "slurm" else f"clusters/{cluster}/jobs/{id}"
    if not (cluster in CONNECTIONS if cloud == "slurm" else is_cluster(cluster)):
        return fail("oumi/cancel-local-other-process", f"RuntimeError: Cluster [yellow]{cluster}[/yellow] not found.")
    if cloud == "slurm" and not exists(job):
        replay("oumi-slurm/logs-unknown-job")
        return
    banner()
    if cloud == "slurm":
        say(lines("oumi-slurm/logs-completed", "Log location", "").replace("1.out", f"{id}.out"))
    say("Logging to console...\n")
    printed, is_done = 0, False
    while not is_done:
        is_done = job_status(job) not in GOES_ON
        log = read(f"{job}/setup_log", "") + read(f"{job}/log", "")
        if cloud != "slurm":
            log = re.sub(f"{ESC}\\[[0-9;]*m", "", sky_log(job, id, follows=True))
        say(log[printed:])
        printed = max(printed, len(log))
        is_done or tick()
    cloud == "slurm" or say(f"✓ Job finished (status: {job_status(job)}).\n")


def ssh_tail():
    global code
    host = f"hosts/{options['--cluster']}"
    job = f"{host}/jobs/{words[-1].split('/')[-1][:-4]}"
    if not exists(f"{host}/connected"):
        code = 255
        return say("Connection closed by UNKNOWN port 65535\n", 2)
    if exists(job):
        return say((read(f"{job}/setup_log", "") + read(f"{job}/log", ""))[-int(options["-c"]):])
    code = 1
    say(f"tail: cannot open '{words[-1]}' for reading: No such file or directory\n", 2)


def oumi_status():
    cloud, wanted, prefix = options["--cloud"], options.get("--id"), "JobStatus."
    banner()
    clusters = listed("clusters")
    if cloud == "slurm":
        clusters, prefix = CONNECTIONS, ""
    else:
        start_api_server()
    say(f"\n{'━' * WIDTH}\n   Cloud: {cloud}\n{'━' * WIDTH}\n\n")
    if not clusters:
        return say("No matching clusters found.\n")
    for cluster in clusters:
        if options.get("--cluster", cluster) == cluster:
            owner = f"hosts/{cluster}" if cloud == "slurm" else f"clusters/{cluster}"
            ids = job_ids(owner)[::-1] if cloud == "slurm" else job_ids(owner) if status_of(cluster) == "UP" else []
            box(cluster, [(str(id), prefix + job_status(f"{owner}/jobs/{id}")) for id in ids if wanted in (None, str(id))])


def box(cluster, rows):
    say("╭" + f" Cluster: {cluster} "[:WIDTH - 4].center(WIDTH - 2, "\0").replace("\0", "─") + "╮\n")
    inside = lambda text: say(f"│ {text.ljust(WIDTH - 4)} │\n")
    if rows:
        first, second = (max(len(cell) for cell in column) for column in zip(("Job", "Status"), *rows))
        edge = lambda left, line, middle, right: inside(left + line * (first + 2) + middle + line * (second + 2) + right)
        edge(*"┏━┳┓")
        inside(f"┃ {'Job'.ljust(first)} ┃ {'Status'.ljust(second)} ┃")
        edge(*"┡━╇┩")
        for id, status in rows:
            inside(f"│ {id.ljust(first)} │ {status.ljust(second)} │")
        edge(*"└─┴┘")
    else:
        inside("[red]No matching jobs found.[/red]")
    say(f"╰{'─' * (WIDTH - 2)}╯\n")


def oumi_cancel():
    global code
    cloud, cluster, id = options["--cloud"], options["--cluster"], options["--id"]
    job = f"hosts/{cluster}/jobs/{id}" if cloud == "slurm" else f"clusters/{cluster}/jobs/{id}"
    if not (cluster in CONNECTIONS if cloud == "slurm" else is_cluster(cluster)):
        return fail("oumi/cancel-local-other-process", f"ValueError: Cluster {cluster} not found.")
    if not exists(job):
        name = "oumi-slurm/cancel-unknown-job" if cloud == "slurm" else "oumi-sky/cancel-unknown"
        said = re.sub("Job (999|77) not", f"Job {id} not", capture(name)).replace("(77)", f"({id})")
        code = 1
        return say(said.replace("'skyc2'", f"'{cluster}'"))
    banner()
    if cloud == "slurm":
        return cancel_unless_done(job)
    start_api_server()
    say(f"{ESC}[33mCancelling jobs ({id}) on cluster '{cluster}'...{ESC}[0m\n")
    say_cancelled([id] if cancel_unless_done(job) else [])


def oumi_down():
    cluster = options["--cluster"]
    banner()
    if not (cluster in CONNECTIONS if options["--cloud"] == "slurm" else is_cluster(cluster)):
        say(f"Cluster {cluster} not found.\n")
    elif options["--cloud"] != "slurm":
        remove(f"clusters/{cluster}")
    say(f"Cluster {cluster} turned down!\n")


def oumi_stop():
    cluster = options["--cluster"]
    if is_cluster(cluster) and read(f"clusters/{cluster}/cloud") not in CANNOT_STOP:
        write(f"clusters/{cluster}/status", "STOPPED")
    say(capture("oumi-slurm/stop").replace("root@localhost", cluster))


# ---- the command line

def main(folder, program, *arguments):
    global FOLDER, WIDTH, CONNECTIONS, words, options, document, knobs
    FOLDER, WIDTH = folder, int(os.environ.get("COLUMNS") or 80)
    CONNECTIONS = [host for host in os.environ.get("OUMI_SLURM_CONNECTIONS", "").split(",") if host]
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    fields = [program, str(os.getpid()), os.environ.get("COLUMNS", ""), os.environ.get("OUMI_SLURM_CONNECTIONS", "")]
    fields += [argument.replace("\t", " ").replace("\n", " ") for argument in arguments]
    with open(os.path.join(FOLDER, "calls"), "a", encoding="utf-8", errors="surrogateescape") as calls:
        calls.write("\t".join(fields) + "\n")
    words, options, document, waiting = [], {}, None, iter(arguments)
    for argument in waiting:
        if argument in ("-y", "--no-follow", "--detach", "--version", "--down", "--cancel", "--all-regions", "--help", "-u"):
            options[argument] = ""
        elif argument.startswith("-"):
            options[argument] = next(waiting, "")
        else:
            words.append(argument)
    if program == "oumi" and words == ["launch", "up"]:
        write("launcher-environment", "\n".join(os.environ))
        with open(options["-c"], encoding="utf-8") as file:
            document = json.load(file)
    if program == "ssh":
        options["--cluster"] = words[0]
    words = (words if program == "sky" else words[1:]) or ["version" if program == "sky" else "help"]
    command = globals().get(f"{program}_{words[0]}", lambda *_: replay(f"{program}/{words[0]}"))
    knobs = Knobs(f"{program}-{words[0]}", document["name"] if document else options.get("--cluster", words[-1]))
    if program == "sky" and words[0] != "version":
        perform(lambda: (start_api_server(), command(words[1:])))
    else:
        perform(command)


if __name__ == "__main__":
    main(*sys.argv[1:])
