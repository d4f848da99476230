#!/bin/sh
# Runs inside the sandbox: the suite ("$@" is its program with arguments), then what looks back at all of it.
# With TEST only some tests ran, so that nobody can say which permissions are needed.
set -eu
"$@"
if [ -z "${TEST:-}" ]; then
	exec "$1" --ignored --nocapture least_privilege
fi
