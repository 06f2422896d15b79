#!/usr/bin/env bash
# Makes the image of a Redis for the suite, pippin-redis:test: the published one, or Debian's on the
# base of our own images.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/engine.sh"

IMAGE=pippin-redis:test # as in install.sh
PUBLISHED=$(sed -n 's/^  image: \(valkey.*\)/\1/p' "$ROOT/charts/pippin/values.yaml")

from_debian() {
  local home
  home=$(dirname "$("$HERE/../redis.sh" --debian | tail -n 1)")
  printf 'FROM %s\nCOPY root/usr/bin/redis-server /usr/bin/\nCOPY root/usr/lib /usr/lib\n%s\n' \
    "$("$HERE/../images/base.sh" --tag)" 'USER 65532:65532' |
    in_engine docker build -t "$IMAGE" -f - "$home"
}

test_image "$IMAGE" "$PUBLISHED" from_debian
