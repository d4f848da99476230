"""Drives the gateway's server-facing side: starts it with the suite's server behind, and calls through it."""
import json, os, socket, subprocess, sys, tempfile, time, urllib.error, urllib.request

REVISION = "2025-11-25" if os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "") < "2026" else "2026-07-28"


def start(url):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False)
    json.dump({"servers": [{"name": "suite", "url": url}]}, config)
    config.close()
    broker = subprocess.Popen([os.environ["MCPGW_BROKER"], "run", "--config", config.name, f"--mcp-broker-public-address=127.0.0.1:{port}",
                               "--metrics-addr=", "--discovery-tools-enabled=false"], stdout=sys.stderr)
    end = time.time() + 8
    while time.time() < end:
        try:
            status = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/status"))
            if status["servers"] and status["servers"][0]["ready"]:
                return broker, f"http://localhost:{port}/mcp"
        except OSError:
            pass
        time.sleep(0.05)
    # A suite whose server has no lists leaves it unready; what it wanted to see has been sent all the same.
    return broker, f"http://localhost:{port}/mcp"


class Client:
    def __init__(self, url):
        self.url, self.session, self.next = url, None, 0
        if REVISION < "2026":
            self.ask("initialize", {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "driver", "version": "1"}})

    def ask(self, method, params, mirrored=()):
        self.next += 1
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if REVISION > "2026":
            meta = {"io.modelcontextprotocol/protocolVersion": REVISION, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}}
            params = {**params, "_meta": meta}
            headers |= {"mcp-protocol-version": REVISION, "mcp-method": method, **dict(mirrored)}
            if name := params.get("name", params.get("uri")):
                headers["mcp-name"] = name
        if self.session:
            headers["mcp-session-id"] = self.session
        body = json.dumps({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params})
        request = urllib.request.Request(self.url, body.encode(), headers)
        try:
            response = urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as error:
            response = error
        self.session = self.session or response.headers.get("mcp-session-id")
        text = response.read().decode()
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            text = [line[5:] for line in text.splitlines() if line.startswith("data:") and line[5:].strip()][-1]
        answer = json.loads(text)
        print(method, params.get("name"), "->", text[:300], file=sys.stderr)
        return answer.get("result", answer)


def act(client, scenario):
    tools = {tool["name"]: tool for tool in client.ask("tools/list", {}).get("tools", [])}
    if scenario == "tools_call":
        client.ask("tools/call", {"name": "add_numbers", "arguments": {"a": 5, "b": 3}})
    elif scenario == "http-custom-headers":
        context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
        for call in context.get("toolCalls", []):
            client.ask("tools/call", {"name": call["name"], "arguments": call["arguments"]}, mirrors(tools[call["name"]], call["arguments"]))
    elif scenario == "http-invalid-tool-headers":
        for name, tool in tools.items():
            arguments = {key: "x" for key in tool["inputSchema"].get("properties", {})}
            client.ask("tools/call", {"name": name, "arguments": arguments}, mirrors(tool, arguments))
    else:
        for name in tools:
            arguments = {}
            answer = client.ask("tools/call", {"name": name, "arguments": arguments})
            for _ in range(4):
                if answer.get("resultType") != "input_required":
                    break
                answers = {key: {"action": "accept", "content": {"confirmed": True, "name": "ann"}} for key in answer.get("inputRequests", {})}
                again = {"name": name, "arguments": arguments, "inputResponses": answers}
                if "requestState" in answer:
                    again["requestState"] = answer["requestState"]
                answer = client.ask("tools/call", again)
        for prompt in client.ask("prompts/list", {}).get("prompts", []):
            client.ask("prompts/get", {"name": prompt["name"]})
        for resource in client.ask("resources/list", {}).get("resources", []):
            client.ask("resources/read", {"uri": resource["uri"]})


def mirrors(tool, arguments):
    import base64
    for key, schema in tool["inputSchema"].get("properties", {}).items():
        value, name = arguments.get(key), schema.get("x-mcp-header")
        if not name or value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        plain = text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?")
        yield "mcp-param-" + name, text if plain else "=?base64?" + base64.b64encode(text.encode()).decode() + "?="


broker, url = start(sys.argv[-1])
try:
    act(Client(url), os.environ["MCP_CONFORMANCE_SCENARIO"])
finally:
    broker.terminate()
    broker.wait()
