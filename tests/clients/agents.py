"""Drives the server with a coding agent whose model is a script: a preview, a launch, a wait, the log with its picture, the list.

    agents.py SERVER claude|codex|gemini PROGRAM

PROGRAM is the agent's own. The script answers on loopback as the API of that agent's model does. Each turn calls the next tool;
the results that the agent then shows its model are what is checked.
"""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

SERVER, AGENT, PROGRAM = sys.argv[1:4]
LONGEST = 180  # seconds


def steps(project):
    """The calls of the model, each with the words that its result must have."""
    job = {"config_path": "count.yaml", "command": "train", "client_cwd": project, "job_name": "story"}
    launch = {**job, "dry_run": False, "confirm": True, "user_confirmation": "EXECUTE"}
    return [
        ("run_job", job, ["dry_run", "plan_id"]),
        ("run_job", launch, ["story", '"success"']),
        ("poll_status", {"job_id": "story", "wait_seconds": 50}, ["SUCCEEDED"]),
        ("get_job_logs", {"job_id": "story", "plot": True}, ["step 5 of 5", "sparkline"]),
        ("list_jobs", {}, ["story", "completed"]),
    ]


class Model:
    """The script, and the results of its calls as the agent gave them to it."""

    def __init__(self, script):
        self.script = script
        self.results = {}

    def next_call(self, tools, results):
        """The next call with the name that the agent has for its tool; None when all are made, or for another purpose."""
        self.results.update(enumerate(results[: len(self.script)]))
        if len(results) >= len(self.script):
            return None
        tool, arguments, _ = self.script[len(results)]
        name = next((name for name in tools if name.endswith(tool) and "oumi" in name), None)
        name = name or next((name for name in tools if name.endswith(tool)), None)
        return name and (name, arguments)


def sse(*events):
    names = [f"event: {data['type']}\n" if "type" in data else "" for data in events]
    return "text/event-stream", "".join(f"{name}data: {json.dumps(data)}\n\n" for name, data in zip(names, events))


def anthropic(model, path, body):
    """The Messages API."""
    if "count_tokens" in path:
        return "application/json", json.dumps({"input_tokens": 10})
    parts = [part for message in body.get("messages", []) if isinstance(message["content"], list) for part in message["content"]]
    results = [json.dumps(part["content"]) for part in parts if part.get("type") == "tool_result"]
    call = model.next_call([tool["name"] for tool in body.get("tools", [])], results)
    if call:
        block = {"type": "tool_use", "id": f"toolu_{len(results)}", "name": call[0], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call[1])}
    else:
        block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": "all done"}
    reason = "tool_use" if call else "end_turn"
    message = {"id": "msg", "type": "message", "role": "assistant", "model": body.get("model"), "content": [],
               "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
    if not body.get("stream"):
        return "application/json", json.dumps({**message, "content": [{"type": "text", "text": "all done"}], "stop_reason": "end_turn"})
    return sse(
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    )


def openai(model, path, body):
    """The Responses API."""
    items = body.get("input", []) if isinstance(body.get("input"), list) else []
    results = [json.dumps(item["output"]) for item in items if item.get("type") == "function_call_output"]
    tools = {}
    for tool in body.get("tools", []):
        for one in tool.get("tools", [tool]):
            space = tool.get("name") if "tools" in tool else None
            tools[f"{space or ''}{one.get('name', '')}"] = (space, one.get("name"))
    call = model.next_call(list(tools), results)
    if call:
        space, name = tools[call[0]]
        item = {"type": "function_call", "id": f"fc_{len(results)}", "call_id": f"call_{len(results)}", "name": name,
                "arguments": json.dumps(call[1]), **({"namespace": space} if space else {})}
    else:
        item = {"type": "message", "id": "msg", "role": "assistant", "content": [{"type": "output_text", "text": "all done"}]}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    return sse(
        {"type": "response.created", "response": {"id": "resp"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "resp", "usage": usage}},
    )


def google(model, path, body):
    """The API of Gemini."""
    if "countTokens" in path:
        return "application/json", json.dumps({"totalTokens": 10})
    parts = [part for content in body.get("contents", []) for part in content.get("parts", [])]
    results = [json.dumps(part["functionResponse"]["response"]) for part in parts if "functionResponse" in part]
    tools = [one["name"] for tool in body.get("tools", []) for one in tool.get("functionDeclarations", [])]
    call = model.next_call(tools, results)
    part = {"functionCall": {"name": call[0], "args": call[1]}} if call else {"text": "all done"}
    answer = {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
              "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}}
    if "stream" in path:
        return sse(answer)
    return "application/json", json.dumps(answer)


def serve(model, api):
    """Serves the model on loopback, and returns the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, kind, text):
            data = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_HEAD(self):
            self.reply("application/json", "")

        def do_GET(self):
            self.reply("application/json", json.dumps({"models": [], "data": []}))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            if os.environ.get("AGENTS_LOG"):
                with open(os.environ["AGENTS_LOG"], "a") as log:
                    log.write(json.dumps({"path": self.path, "body": body}) + "\n")
            self.reply(*api(model, self.path, body))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def claude(home, url):
    servers = {"mcpServers": {"oumi": {"command": SERVER, "env": {"OUMI_MCP_HOME": str(home / "data")}}}}
    (home / "mcp.json").write_text(json.dumps(servers))
    tools = ",".join(f"mcp__oumi__{tool}" for tool in ["run_job", "poll_status", "get_job_logs", "list_jobs"])
    environment = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                   "DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1", "ENABLE_TOOL_SEARCH": "false"}
    return ["-p", "train", "--mcp-config", str(home / "mcp.json"), "--strict-mcp-config", "--allowedTools", tools], environment


def codex(home, url):
    (home / ".codex").mkdir()
    (home / ".codex/config.toml").write_text(f"""
model = "scripted"
model_provider = "script"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.script]
name = "script"
base_url = "{url}/v1"
wire_api = "responses"
[mcp_servers.oumi]
command = "{SERVER}"
[mcp_servers.oumi.env]
OUMI_MCP_HOME = "{home / 'data'}"
""")
    return ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "train"], {}


def gemini(home, url):
    (home / ".gemini").mkdir()
    (home / ".gemini/settings.json").write_text(json.dumps({
        "mcpServers": {"oumi": {"command": SERVER, "env": {"OUMI_MCP_HOME": str(home / "data")}, "trust": True}},
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"disableAutoUpdate": True, "disableUpdateNag": True},
        "telemetry": {"enabled": False},
    }))
    environment = {"GEMINI_API_KEY": "none", "GOOGLE_GEMINI_BASE_URL": url, "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    return ["--yolo", "-m", "gemini-2.5-pro", "-p", "train"], environment


AGENTS = {"claude": (claude, anthropic), "codex": (codex, openai), "gemini": (gemini, google)}


def main():
    prepare, api = AGENTS[AGENT]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = pathlib.Path(folder)
        project = home / "project"
        project.mkdir()
        script = 'for i in 1 2 3 4 5; do echo "step $i of 5, loss 0.$((9 - i))5"; done'
        (project / "count.yaml").write_text(json.dumps({"name": "count", "run": script}))
        model = Model(steps(str(project)))
        arguments, environment = prepare(home, serve(model, api))
        environment |= {"HOME": folder, "PATH": os.environ["PATH"], "TMPDIR": folder}
        ended = subprocess.run([PROGRAM, *arguments], cwd=project, env=environment, stdin=subprocess.DEVNULL, timeout=LONGEST,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for number, (tool, _, words) in enumerate(model.script):
            result = model.results.get(number)
            if result is None:
                sys.exit(f"error: {AGENT} gave its model no result of call {number}, {tool}; it printed:\n{ended.stdout[-3000:]}")
            missing = [word for word in words if word not in result.replace('\\"', '"')]
            if missing:
                sys.exit(f"error: {AGENT}: the result of {tool} lacks {missing}: {result[:3000]}")
        print(f"ok: {AGENT}, with a script for a model: a job was previewed, launched, waited for, read and listed")


main()
