#!/usr/bin/env bash
# Puts the samples behind config/example-access-control and shows what callers with and without a token get. Needs kubectl
# with KUBECONFIG, or a kept sandbox (make local-env-setup). Usage: oauth.sh KIT
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
if [[ -z ${KUBECONFIG:-} ]] && "$1" exec -- true 2>/dev/null; then
  exec "$1" exec -- "$repository/test/demo/oauth.sh" "$1"
fi
if [[ -z ${KUBECONFIG:-} && ! -e ~/.kube/config ]]; then
  echo "No kept sandbox (make local-env-setup) and no KUBECONFIG: nothing to put behind the policy" >&2
  exit 1
fi
# The token of the example's issuer: subject "me", valid until 2030.
TOKEN=eyJhbGciOiJFUzI1NiIsImtpZCI6IlhoTzA2eDhKaldIMXd3a1dreWVFVXhzb29HRVdvRWRpZEVwd3lkX2htdUkiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJtZS5jb20iLCJleHAiOjE5MDA2NTAyOTQsImlhdCI6MTc0MzYyNDc4NywiaXNzIjoibWUiLCJqdGkiOiJlM2MzNjhkYzBmNGUyODdiYzhkYmM2OTIyOTU5ZTA3M2YzMThkNTliYTlhZjdhY2Q0N2ViMWUzZGIyOTZlYTQwIiwibmJmIjoxNzQzNjI0Nzg3LCJzdWIiOiJtZSJ9.IshAKo62yWHwfnt62vR1nfa4SQmpSB-4ceAMXWs1P_rREl2gYj6nJ7HwLM5avv_eyOFbI-3rRZzCMCuNVLAF5w
MCPGW=${MCPGW_BIN_DIR:-$repository/bin}/mcpgw

kubectl apply -k "$repository/config/example-access-control"
kubectl wait --for=condition=Ready mcpgatewayextension/mcp-gateway -n team-a --timeout=120s
kubectl wait --for=condition=Ready mcpserverregistration --all -n mcp-servers --timeout=120s
kubectl wait --for=condition=Enforced mcpauthpolicy/example-access -n team-a --timeout=60s
kubectl rollout status deployment/mcp-gateway -n team-a --timeout=120s

address=$(kubectl get gateway mcp-gateway -n gateway-system -o 'jsonpath={.status.addresses[0].value}')
gateway=(curl -sS --max-time 30 --noproxy '*' --connect-to "::$address:" -H 'Content-Type: application/json')
url=http://mcp.127-0-0-1.sslip.io:8080
initialize='{"jsonrpc":"2.0","id":1,"method":"initialize"}'
show() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

show "Without a token: 401 and the way to the metadata"
"${gateway[@]}" -o /dev/null -D - -d "$initialize" "$url/mcp" | tee /dev/stderr | grep '^HTTP/1.1 401' >/dev/null
show "The metadata, which names the authorization servers"
"${gateway[@]}" --fail "$url/.well-known/oauth-protected-resource/mcp"
show "With a token of the example's issuer: what the policy allows"
"$MCPGW" tools list --extension team-a/mcp-gateway --token "$TOKEN"
"$MCPGW" tools call weather_add a=19 b=23 --extension team-a/mcp-gateway --token "$TOKEN"
show "And nothing else"
if "$MCPGW" tools call weather_forecast city=Oslo --extension team-a/mcp-gateway --token "$TOKEN"; then
  echo "weather_forecast should have been refused" >&2
  exit 1
fi
cat <<END

The ACL is config/example-access-control/policy.yaml; change it and: kubectl apply -k config/example-access-control
Open to all again: kubectl delete mcpauthpolicy example-access -n team-a
In MCP Inspector (make inspect-gateway) put this under Authentication, header Authorization, value "Bearer" and:
$TOKEN
END
