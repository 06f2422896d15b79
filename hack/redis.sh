#!/usr/bin/env bash
# Prints the path of a redis-server for the tests: the one on PATH (Valkey's is as good), else the
# one of Debian's packages, unpacked into the cache; nothing is installed.
#
#   redis.sh --debian   Debian's, whatever is on PATH
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PACKAGES=(redis-server redis-tools libjemalloc2 liblzf1 libatomic1)

unpack() {
  cd "$1"
  chmod 755 .
  apt-cache show redis-server >/dev/null 2>&1 || apt-get update -q
  apt-get download -q "${PACKAGES[@]}"
  for package in *.deb; do dpkg-deb -x "$package" root; done
  rm -f ./*.deb
  # The server is a link to the other program, which goes by its own name; what both link to lies
  # beside them.
  cp --remove-destination root/usr/bin/redis-check-rdb root/usr/bin/redis-server
  cat >redis-server <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$(echo "$here"/root/usr/lib/*-linux-gnu)"
exec "$here/root/usr/bin/redis-server" "$@"
END
  chmod +x redis-server
}

if [ "${1:-}" != --debian ]; then
  for program in redis-server valkey-server; do
    if command -v "$program"; then exit; fi
  done
fi
home=$PIPPIN_CACHE/redis
if ! [ -x "$home/redis-server" ]; then
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    die "the tests need a redis-server or valkey-server on PATH: install one, then run again"
  fi
  mkdir -p "$PIPPIN_CACHE/logs"
  partial=$(mktemp -d "$PIPPIN_CACHE/redis.XXXXXX")
  watched "redis-server" "$PIPPIN_CACHE/logs/redis.log" unpack "$partial" >&2 ||
    die "Debian's redis-server could not be fetched; the log is $PIPPIN_CACHE/logs/redis.log"
  rm -rf "$home" && mv "$partial" "$home"
fi
say "$home/redis-server"
