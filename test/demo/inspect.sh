#!/usr/bin/env bash
# MCP Inspector, opened with the URL of the gateway; the Gateway is forwarded while it runs. Usage: inspect.sh KIT
# MCP_URL inspects another endpoint, such as http://127.0.0.1:8080/mcp of `make run`, and forwards nothing.
set -euo pipefail
port=${GATEWAY_LOCAL_PORT_HTTP_MCP:-${KIND_HOST_PORT_HTTP:-8888}}
command -v npx >/dev/null || { echo "npx is missing: install Node.js 22.7.5 or later" >&2; exit 1; }
forwarding=
if [[ -z ${MCP_URL:-} ]]; then
  host=mcp.127-0-0-1.sslip.io
  # Without a DNS that knows sslip.io: the sandbox's Gateway takes this name as well.
  getent hosts "$host" >/dev/null || host=localhost
  MCP_URL=http://$host:$port/mcp
  "$(dirname "$0")/forward.sh" "$1" &
  forwarding=$!
  trap 'kill $forwarding 2>/dev/null || true' EXIT
fi
answers() {
  curl -sS -o /dev/null -m 5 --noproxy '*' -H 'Content-Type: application/json' \
    -d '{"jsonrpc":"2.0","id":1,"method":"initialize"}' "$MCP_URL"
}
for left in $(seq 30 -1 0); do
  answers 2>/dev/null && break
  if [[ $left == 0 ]] || { [[ -n $forwarding ]] && ! kill -0 "$forwarding" 2>/dev/null && ! wait "$forwarding"; }; then
    answers || true
    echo "Nothing to inspect at $MCP_URL" >&2
    exit 1
  fi
  sleep 1
done
# The page's own key, so that the URL below can be opened as it stands.
MCP_PROXY_AUTH_TOKEN=${MCP_PROXY_AUTH_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
export MCP_PROXY_AUTH_TOKEN
echo "MCP Inspector: http://localhost:${CLIENT_PORT:-6274}/?MCP_PROXY_AUTH_TOKEN=$MCP_PROXY_AUTH_TOKEN&transport=streamable-http&serverUrl=$MCP_URL"
npx -y @modelcontextprotocol/inspector@0.17.5 --transport http --server-url "$MCP_URL"
