#!/usr/bin/env bash
# Makes the base image unless it is there: Debian's Python and what that needs, no package managers.
#
#   base.sh [FLAVOUR]         make it
#   base.sh --tag [FLAVOUR]   print the image's name and stop
#
# FLAVOUR: plain (default), or compiler, with a C compiler in it: Triton, which vLLM runs GPUs with,
# compiles the launchers of its kernels where they run.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/../kind/engine.sh"

BASE_SUITE=bookworm
BASE_PYTHON=3.11
BASE_PACKAGES=python3,ca-certificates,netbase,libstdc++6,libnuma1
COMPILER_PACKAGES=gcc,libc6-dev,python3-dev

# base_tag: the base's name; another recipe, month or source is another base. A new month brings
# Debian's security updates.
base_tag() {
  local key
  key=$({ cat "$HERE"/base{.sh,/*} && echo "${PIPPIN_BASE:-$(date -u +%Y-%m)}"; } |
    sha256sum | cut -c 1-12)
  say "pippin-base:$BASE_PYTHON${FLAVOUR/#/-}-$key" | sed 's/-plain//'
}

# bootstrap TAG: from Debian's packages, where no image registry can be reached.
bootstrap() {
  local tag=$1 root
  if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    die "the base image is made by root with debootstrap," \
      "or name a published one: PIPPIN_BASE=python:$BASE_PYTHON-slim-$BASE_SUITE@sha256:…"
  fi
  root=$(mktemp -d "${TMPDIR:-/tmp}/pippin-base.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$root'" EXIT
  debootstrap --variant=minbase "--include=$(packages)" "$BASE_SUITE" "$root" \
    ${PIPPIN_DEBIAN_MIRROR:+"$PIPPIN_DEBIAN_MIRROR"}
  update_packages "$root"
  cp "$HERE/base/strip.sh" "$root/strip.sh"
  chroot "$root" env "FLAVOUR=$FLAVOUR" sh /strip.sh
  rm "$root/strip.sh"
  tar -C "$root" --numeric-owner --one-file-system -c . |
    in_engine docker import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8' - "$tag"
}

# update_packages ROOT: security updates, from where this machine gets its own.
update_packages() {
  local sources=/etc/apt/sources.list.d/debian.sources
  if ! grep -qs "$BASE_SUITE-security" "$sources"; then return; fi
  cp "$sources" "$1$sources"
  chroot "$1" sh -c 'apt-get update -q && apt-get upgrade -qy'
}

packages() {
  if [ "$FLAVOUR" = compiler ]; then say "$BASE_PACKAGES,$COMPILER_PACKAGES"; else say "$BASE_PACKAGES"; fi
}

ONLY_TAG=
if [ "${1:-}" = --tag ]; then ONLY_TAG=yes && shift; fi
FLAVOUR=${1:-plain}
TAG=$(base_tag)
if [ -n "$ONLY_TAG" ]; then
  say "$TAG"
elif in_engine docker image inspect "$TAG" >/dev/null 2>&1; then
  say "$TAG is there"
elif [ -n "${PIPPIN_BASE:-}" ]; then
  in_engine docker build -t "$TAG" --build-arg "FROM=$PIPPIN_BASE" \
    --build-arg "FLAVOUR=$FLAVOUR" --build-arg "PACKAGES=$(packages | tr , ' ')" "$HERE/base"
else
  bootstrap "$TAG"
fi
