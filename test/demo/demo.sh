#!/usr/bin/env bash
# The main job, shown: runs inside `kit run` with KUBECONFIG set. Each command is printed as it could be typed; the first
# one that does not answer as it should ends the demo with its exit code.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
ln -s "$repository/config" config
trap 'echo "demo: FAILED at: $BASH_COMMAND" >&2' ERR

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
# Prints a command and runs it.
run() {
  printf '\033[36m$ %s\033[0m\n' "$*"
  eval "$*"
}
# One JSON-RPC message to the gateway; keeps headers and the JSON of the answer (plain or from an SSE stream).
mcp() {
  run "curl -sS --fail-with-body --max-time 30 \$GATEWAY \$SESSION -D headers -o answer -d '$1'"
  sed -n -e 's/^data: *//p' -e '/^{/p' answer | tail -n 1 >json
}
# Evaluates a Python expression over the answer `a`, prints it, and fails when it is falsy.
expect() {
  python3 - json "$1" <<'PY'
import json, sys
a = json.load(open(sys.argv[1]))
try:
    value = eval(sys.argv[2])
except Exception as error:
    sys.exit(f"demo: {sys.argv[2]} failed with {error!r} on {a}")
print("  ", value)
sys.exit(0 if value else f"demo: {sys.argv[2]} does not hold for {a}")
PY
}
# A command that must be refused, with a message that contains $1.
refused() {
  local words=$1 answer
  shift
  printf '\033[36m$ %s\033[0m\n' "$*"
  if answer=$(eval "$*" 2>&1); then
    echo "demo: this should have been refused: $answer" >&2
    return 1
  fi
  echo "$answer"
  grep -q "$words" <<<"$answer" || { echo "demo: the refusal should say: $words" >&2; return 1; }
}

step "Install the operator and its webhooks"
run "kubectl apply -k config/install"
run "kubectl wait --for=condition=Available deployment --all -n mcp-system --timeout=60s"

step "A Gateway, two MCP servers that nobody here wrote, one extension, two registrations"
run "kubectl apply -k config/samples"
run "kubectl wait --for=condition=Programmed gateway/mcp-gateway -n gateway-system --timeout=60s"
run "kubectl wait --for=condition=Ready mcpgatewayextension/mcp-gateway -n team-a --timeout=90s"
run "kubectl wait --for=condition=Ready mcpserverregistration --all -n mcp-servers --timeout=90s"
run "kubectl get mcp -A"
run "kubectl get deployment,service,httproute -n team-a"
run "kubectl get envoyfilter -n gateway-system -l app.kubernetes.io/managed-by=mcp-gateway-controller"

step "Through Envoy's listener: initialize"
run "ADDRESS=\$(kubectl get gateway mcp-gateway -n gateway-system -o 'jsonpath={.status.addresses[0].value}')"
run "GATEWAY=\"http://mcp.127-0-0-1.sslip.io:8080/mcp --connect-to ::\$ADDRESS: -H Content-Type:application/json -H Accept:application/json,text/event-stream\" SESSION="
mcp '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"demo","version":"1"}}}'
expect 'a["result"]["serverInfo"]'
run "SESSION=\"-H Mcp-Session-Id:\$(sed -n 's/^mcp-session-id: *\([^\r]*\).*/\1/Ip' headers)\""
mcp '{"jsonrpc":"2.0","method":"notifications/initialized"}'

step "tools/list: the tools of both servers, prefixed"
mcp '{"jsonrpc":"2.0","id":2,"method":"tools/list"}'
expect '[t["name"] for t in a["result"]["tools"] if t["name"].startswith("everything_")]'
expect '[t["name"] for t in a["result"]["tools"] if t["name"].startswith("weather_")]'

step "tools/call: one to each server"
mcp '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"everything_echo","arguments":{"message":"hello through Envoy"}}}'
expect '"hello through Envoy" in a["result"]["content"][0]["text"] and a["result"]["content"][0]["text"]'
mcp '{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"weather_add","arguments":{"a":19,"b":23}}}'
expect 'a["result"]["content"][0]["text"] == "42" and a["result"]["content"][0]["text"]'

step "A second extension in the namespace, and one for the same Gateway, are refused before they are stored"
extension=config/samples/mcpgatewayextension.yaml
refused "only one per namespace allowed" "sed 's/^  name: .*/  name: second/' $extension | kubectl create -f -"
refused "only one per Gateway allowed" "sed 's/^  namespace: .*/  namespace: gateway-system/' $extension | kubectl create -f -"

step "Done: every step answered as it should"
if [[ -n ${KEEP:-} ]]; then
  cat <<END
It stays up. From another terminal:
  endpoint    curl -X POST http://localhost:${GATEWAY_LOCAL_PORT_HTTP_MCP:-${KIND_HOST_PORT_HTTP:-8888}}/mcp -H 'Content-Type: application/json' -d '{"jsonrpc":"2.0","id":1,"method":"initialize"}'
  kubectl     export KUBECONFIG=$MCPGW_KIT_DIR/kubeconfig.host
  logs        $MCPGW_KIT_DIR/logs
Stop it with Ctrl-C here, or: ${MCPGW_BIN_DIR:-target/debug}/kit down
END
else
  echo "make demo KEEP=1 keeps it up, and says where its URL, kubeconfig and logs are."
fi
