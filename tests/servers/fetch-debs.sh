#!/bin/bash
# fetch-debs.sh SUITE DEST [PKG...] [--alone PKG...] - unpacks PKGs and everything they need (the C library included) from a
# Debian suite into DEST/root, with wrappers in DEST/bin that run the programs through that suite's own dynamic loader.
# Packages after --alone are unpacked without what they need: data files, and plugins of a server that is there.
#
# apt resolves in a private state with an empty dpkg status: the system's packages are neither used nor touched, no root is
# needed, and the archive's signature is checked with the keyring of this machine. The mirror is the one this machine uses.
# An empty SUITE takes the sources and lists of this machine as they are, and only packages --alone.
set -euo pipefail

suite=$1
dest=$(realpath -m "$2")
shift 2
packages=() alone=()
while [ $# -gt 0 ] && [ "$1" != --alone ]; do packages+=("$1"); shift; done
[ $# -gt 0 ] && alone=("${@:2}")

work=$(mktemp -d /tmp/kpb-fetch-XXXXXX) # apt splits its options at spaces; DEST may have some
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{etc/preferences.d,etc/apt.conf.d,state/lists/partial,cache/archives/partial} "$dest"/{root,bin}

# a mirror that has not been renewed for a while is good enough for a test: its signature is checked all the same
private=(-qq -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false)
if [ -n "$suite" ]; then
  : >"$work/state/status"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' | grep -v -- '-security' | head -n 1) || true
  [ -n "$mirror" ] || { echo "no Debian mirror in the apt sources of this machine" >&2; exit 1; }
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
  private+=(
    -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::Etc::preferences=/dev/null" -o "Dir::Etc::preferencesparts=/dev/null"
    -o "Dir::State=$work/state" -o "Dir::State::status=$work/state/status"
    -o APT::Install-Recommends=false -o Acquire::Languages=none -o Debug::NoLocking=1)
  apt-get "${private[@]}" update
fi
[ ${#packages[@]} = 0 ] || apt-get "${private[@]}" -y --download-only install "${packages[@]}"
[ ${#alone[@]} = 0 ] || (cd "$work/cache/archives" && apt-get "${private[@]}" download "${alone[@]}")
for package in "$work"/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x --no-same-owner -C "$dest/root"
done

libraries=$(cd "$dest/root" && echo usr/lib/*-linux-gnu)
loader=$(cd "$dest/root" && echo "$libraries"/ld-linux-*.so.*)
for program in usr/sbin/{mysqld,mariadbd} usr/bin/{mysql,mysqldump,mysqlbinlog,mysqladmin} usr/bin/mariadb{,-dump,-binlog,-admin}; do
  # links of the old names are left out, and so are all programs that come without their C library
  [ -f "$dest/root/$program" ] && [ ! -L "$dest/root/$program" ] && [ -f "$dest/root/$loader" ] || continue
  # shellcheck disable=SC2016
  printf '#!/bin/sh\nroot=$(dirname "$(dirname "$(readlink -f "$0")")")/root\nexec "$root/%s" --library-path "$root/%s:$root/usr/lib/mysql/private" "$root/%s" "$@"\n' \
    "$loader" "$libraries" "$program" >"$dest/bin/${program##*/}"
  chmod +x "$dest/bin/${program##*/}"
done
if [ ${#packages[@]} != 0 ]; then
  [ -x "$dest/bin/mysqld" ] || [ -x "$dest/bin/mariadbd" ] || { echo "no server in ${packages[*]}" >&2; exit 1; }
fi
rm -rf "$dest"/root/usr/share/{doc,man,locale,perl*} "$dest/root/$libraries"/perl*
