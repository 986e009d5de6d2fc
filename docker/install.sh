#!/bin/sh
# install.sh PREFIX - the program and its locked packages as a virtual environment at PREFIX, without what installs it.
# Runs in the image's build; a test runs it in an empty folder. The place is fixed afterwards: scripts in it name it.
set -eu
prefix=$1
python3 -m venv "$prefix"
pip() {
  "$prefix/bin/python" -m pip install --quiet --no-input --no-cache-dir --disable-pip-version-check "$@"
}
pip --require-hashes --only-binary :all: -r requirements-kubernetes.lock
pip --no-deps --no-build-isolation .
"$prefix/bin/python" -m pip --quiet --disable-pip-version-check uninstall --yes setuptools pip
rm -f "$prefix"/bin/pip* "$prefix"/bin/activate* "$prefix"/bin/Activate.ps1
