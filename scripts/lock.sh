#!/bin/bash
# lock.sh - writes the lock files from pyproject.toml: names, versions and hashes, no address of any index. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
command -v uv >/dev/null || { echo "lock.sh: uv is not installed; run: .venv/bin/python -m pip install uv" >&2; exit 1; }

build=$(mktemp --suffix=.in)
trap 'rm -f "$build"' EXIT
# set-up installs the package without build isolation, so what builds it is locked with the rest
sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml >"$build"
[ -s "$build" ] || { echo "lock.sh: no build requirement found in pyproject.toml" >&2; exit 1; }

constraint=()
lock() { # lock FILE [EXTRA]: versions already in FILE stay; UPGRADE=1 takes the newest
  uv pip compile pyproject.toml "$build" ${2:+--extra "$2"} --universal --python-version 3.11 --generate-hashes --quiet \
    "${constraint[@]}" --no-header --no-annotate --no-emit-index-url ${UPGRADE:+--upgrade} --output-file "$1"
}
# they are installed over one another, so they must agree: the largest decides
lock requirements-dev.lock dev
constraint=(--constraint requirements-dev.lock)
lock requirements.lock
lock requirements-kubernetes.lock kubernetes
lock requirements-demo.lock demo
lock requirements-audit.lock audit
if grep -nE '://|--(extra-)?index|--find-links|@ ' requirements*.lock; then
  echo "lock.sh: a lock file names a host" >&2
  exit 1
fi
