#!/bin/bash
# setup.sh base|demo|check|test|audit|bench - brings what one make target needs, and nothing else:
#   base   .venv with kpbackup and its locked dependencies
#   demo   base + MariaDB's programs (no service), age, minisign, zstd, the S3 server
#   check  base + the checkers
#   test   demo + check + chromium, which the status page is tried in
#   audit  base + pip-audit, and what writes the bill of materials
#   bench  demo + mydumper
# A second run finds everything in place in a moment and needs no root. Stopped half-way it is simply run again.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin" # a user's PATH may lack the folder of mariadbd
PYTHON=${PYTHON:-python3}

fail() {
  echo "kpbackup set-up: $*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif ! command -v sudo >/dev/null; then
    fail "root rights or sudo are needed once to install: $missing"
  elif [ -t 0 ]; then
    sudo "$@"
  else
    sudo -n true 2>/dev/null || fail "sudo asks for a password and there is no terminal; install by hand: apt-get install $missing"
    sudo "$@"
  fi
}

install_packages() { # install_packages PACKAGE... (Debian's; none of them starts a service)
  missing=$*
  command -v apt-get >/dev/null || fail "this machine has no apt-get; install by hand: $missing"
  echo "installing with apt-get: $missing"
  local quiet=(-qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
  as_root apt-get "${quiet[@]}" update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${quiet[@]}" install -y --no-install-recommends "$@" >/dev/null
}

need_programs() { # need_programs PROGRAM:PACKAGE...
  local absent=() pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || absent+=("${pair##*:}")
  done
  [ ${#absent[@]} = 0 ] || install_packages "${absent[@]}"
}

need_libraries() { # need_libraries LIBRARY:PACKAGE...
  local absent=() pair
  for pair in "$@"; do
    ldconfig -p | grep -q "${pair%%:*}" || absent+=("${pair##*:}")
  done
  [ ${#absent[@]} = 0 ] || install_packages "${absent[@]}"
}

make_venv() {
  # the programs in it know their folder by its full path, so a moved or copied .venv is of no use
  if grep -qsF "$PWD/.venv" .venv/bin/activate && .venv/bin/python -m pip --version >/dev/null 2>&1; then
    return
  fi
  rm -rf .venv
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
  "$PYTHON" -m venv .venv
}

install_python() { # install_python LOCKFILE
  local stamp=".venv/.installed-$1" state
  state=$(cat "$1" pyproject.toml scripts/setup.sh | sha256sum; pwd; "$PYTHON" -V)
  if [ -x .venv/bin/kpbackup ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then
    return
  fi
  make_venv
  echo "installing Python packages of $1"
  local pip=(.venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check)
  "${pip[@]}" --require-hashes --only-binary :all: -r "$1"
  "${pip[@]}" --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
  printf '%s\n' "$state" >"$stamp"
}

check_machine() {
  case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-aarch64) ;;
    *) fail "$(uname -s) on $(uname -m) is not supported: the locked packages exist for Linux on x86_64 and aarch64" ;;
  esac
  command -v "$PYTHON" >/dev/null || fail "$PYTHON is not installed; run: apt-get install python3"
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed, $PYTHON is $("$PYTHON" -V)"
}

demo_programs=(mariadbd:mariadb-server-core mariadb-install-db:mariadb-server-core mariadb:mariadb-client
  age:age minisign:minisign zstd:zstd)

main() {
  check_machine
  case "${1:-}" in
    base) install_python requirements.lock ;;
    demo)
      need_programs "${demo_programs[@]}"
      install_python requirements-demo.lock
      ;;
    test)
      need_programs "${demo_programs[@]}" chromium:chromium
      need_libraries libatomic.so.1:libatomic1 # of what steers the browser
      install_python requirements-dev.lock
      ;;
    check) install_python requirements-dev.lock ;;
    audit) install_python requirements-audit.lock ;;
    bench)
      need_programs "${demo_programs[@]}" mydumper:mydumper
      install_python requirements-demo.lock
      ;;
    *) fail "usage: scripts/setup.sh base|demo|check|test|audit|bench" ;;
  esac
}

main "$@"
