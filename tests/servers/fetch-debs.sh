#!/bin/bash
# fetch-debs.sh [--alone] SUITE DEST PKG... - unpacks PKGs and everything they need (the C library included) from a Debian suite
# into DEST/root, with wrappers in DEST/bin that run the programs through that suite's own dynamic loader.
# With --alone only the packages themselves: for programs that need no library but this machine's C library.
#
# apt resolves in a private state with an empty dpkg status: the system's packages are neither used nor touched, no root is
# needed, and the archive's signature is checked with the keyring of this machine. The mirror is the one this machine uses.
set -euo pipefail

alone=
[ "$1" != --alone ] || { alone=yes; shift; }
suite=$1
dest=$(realpath -m "$2")
shift 2

work=$(mktemp -d /tmp/kpb-fetch-XXXXXX) # apt splits its options at spaces; DEST may have some
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{etc/preferences.d,etc/apt.conf.d,state/lists/partial,cache/archives/partial} "$dest"/{root,bin}
: >"$work/state/status"

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' | grep -v -- '-security' | head -n 1) || true
[ -n "$mirror" ] || { echo "no Debian mirror in the apt sources of this machine" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"

private=(-qq
  -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::Etc::preferences=/dev/null" -o "Dir::Etc::preferencesparts=/dev/null"
  -o "Dir::State=$work/state" -o "Dir::State::status=$work/state/status" -o "Dir::Cache=$work/cache"
  -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 -o Debug::NoLocking=1)
apt-get "${private[@]}" update
if [ -n "$alone" ]; then
  (cd "$work/cache/archives" && apt-get "${private[@]}" download "$@")
else
  apt-get "${private[@]}" -y --download-only install "$@"
fi
for package in "$work"/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x --no-same-owner -C "$dest/root"
done

[ -z "$alone" ] || exit 0

libraries=$(cd "$dest/root" && echo usr/lib/*-linux-gnu)
loader=$(cd "$dest/root" && echo "$libraries"/ld-linux-*.so.*)
for program in usr/sbin/mysqld usr/bin/{mysql,mysqldump,mysqlbinlog,mysqladmin}; do
  [ -f "$dest/root/$program" ] || continue
  # shellcheck disable=SC2016
  printf '#!/bin/sh\nroot=$(dirname "$(dirname "$(readlink -f "$0")")")/root\nexec "$root/%s" --library-path "$root/%s:$root/usr/lib/mysql/private" "$root/%s" "$@"\n' \
    "$loader" "$libraries" "$program" >"$dest/bin/${program##*/}"
  chmod +x "$dest/bin/${program##*/}"
done
[ -x "$dest/bin/mysqld" ] || [ -x "$dest/bin/mysql" ] || { echo "no MySQL program in $*" >&2; exit 1; }
rm -rf "$dest"/root/usr/share/{doc,man,locale,perl*} "$dest/root/$libraries"/perl*
