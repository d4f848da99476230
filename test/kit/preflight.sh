#!/bin/sh
# What `make demo` and `make test` need beside Rust, looked at before anything is compiled. `kit doctor` looks closer (versions,
# virtual networks) once there is a kit.
set -u
needed="node python3 unshare ip"
# Who builds the control plane; it is cached.
[ -d "${MCPGW_CACHE:-${HOME:-}/.cache/mcp-gateway-operator}" ] || needed="go npm $needed"
missing=
for program in $needed; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -n "$missing" ]; then
  echo "missing:$missing; install Go 1.26 or newer from https://go.dev/dl, the rest from packages (Debian: apt-get install nodejs npm python3 python3-pip util-linux iproute2)" >&2
  exit 1
fi
if ! unshare --user true 2>/dev/null; then
  echo "user namespaces are off: enable them with \`sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000\` (Ubuntu 24.04 also: kernel.apparmor_restrict_unprivileged_userns=0), or run the container with --security-opt seccomp=unconfined" >&2
  exit 1
fi
