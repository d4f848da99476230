#!/usr/bin/env bash
# MCP Inspector, opened with the URL of the gateway; the Gateway is forwarded while it runs. Usage: inspect.sh KIT
# MCP_URL inspects another endpoint, such as http://127.0.0.1:8080/mcp of `make run`, and forwards nothing.
set -euo pipefail
port=${GATEWAY_LOCAL_PORT_HTTP_MCP:-${KIND_HOST_PORT_HTTP:-8888}}
command -v npx >/dev/null || { echo "npx is missing: install Node.js 22.7.5 or later" >&2; exit 1; }
if [[ -z ${MCP_URL:-} ]]; then
  MCP_URL=http://mcp.127-0-0-1.sslip.io:$port/mcp
  "$(dirname "$0")/forward.sh" "$1" &
  forwarding=$!
  trap 'kill $forwarding 2>/dev/null || true' EXIT
fi
echo "MCP Inspector: http://localhost:6274/?transport=streamable-http&serverUrl=$MCP_URL"
npx -y @modelcontextprotocol/inspector@0.17.5 --transport http --server-url "$MCP_URL"
