#!/usr/bin/env bash
# A port of this machine for the Gateway of the samples, in the kept sandbox or in the cluster of KUBECONFIG; until Ctrl-C.
# GATEWAY_LOCAL_PORT_HTTP_MCP, else KIND_HOST_PORT_HTTP, says which one (8888). Usage: forward.sh KIT
set -euo pipefail
kit=$1
export GATEWAY_LOCAL_PORT_HTTP_MCP=${GATEWAY_LOCAL_PORT_HTTP_MCP:-${KIND_HOST_PORT_HTTP:-8888}}
url=http://mcp.127-0-0-1.sslip.io:$GATEWAY_LOCAL_PORT_HTTP_MCP/mcp

in_use() {
  echo "Port $GATEWAY_LOCAL_PORT_HTTP_MCP is used by something else; choose another with GATEWAY_LOCAL_PORT_HTTP_MCP" >&2
  exit 1
}
initialize='{"jsonrpc":"2.0","id":1,"method":"initialize"}'
if answer=$(curl -sS -m 5 -H 'Content-Type: application/json' --noproxy '*' -d "$initialize" \
  --connect-to "::127.0.0.1:$GATEWAY_LOCAL_PORT_HTTP_MCP" "$url" 2>/dev/null); then
  [[ $answer == *'"jsonrpc"'* ]] || in_use
  echo "The gateway is at $url already"
  exit 0
fi
if (exec 3<>"/dev/tcp/127.0.0.1/$GATEWAY_LOCAL_PORT_HTTP_MCP") 2>/dev/null; then
  in_use
fi
if "$kit" exec -- true 2>/dev/null; then
  echo "The gateway of the kept sandbox: $url"
  exec "$kit" forward
fi
if [[ -z ${KUBECONFIG:-} && ! -e ~/.kube/config ]]; then
  echo "No kept sandbox (make local-env-setup) and no KUBECONFIG: nothing to forward to" >&2
  exit 1
fi
echo "The gateway of your cluster: $url"
exec kubectl port-forward -n gateway-system svc/mcp-gateway-istio "$GATEWAY_LOCAL_PORT_HTTP_MCP:8080"
