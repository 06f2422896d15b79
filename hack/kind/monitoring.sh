#!/usr/bin/env bash
# What the suite needs to see that metrics are scraped.
#
#   monitoring.sh image   make the image of a Prometheus, pippin-prometheus:test
#   monitoring.sh crd     print the file that defines ServiceMonitors, as its own project ships it
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/engine.sh"

IMAGE=pippin-prometheus:test # as in tests/support/prometheus.py
PUBLISHED=prom/prometheus:v3.7.3
OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.93.0
OPERATOR_SUM=h1:AohlYJT+En8TmNpAcEUJ3GsaJTAqfEBwHmGTVpRm/Io=

# from_debian: the one program out of Debian's package, on the base of our own images.
from_debian() {
  local work
  work=$(mktemp -d "${TMPDIR:-/tmp}/pippin-prometheus.XXXXXX")
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$work'" EXIT
  chmod 755 "$work"
  cd "$work"
  apt-cache show prometheus >/dev/null 2>&1 || apt-get update -q
  apt-get download -q prometheus
  dpkg-deb -x prometheus_*.deb root
  printf 'FROM %s\nCOPY root/usr/bin/prometheus /usr/bin/\nUSER 65532:65532\n%s\n' \
    "$("$HERE/../images/base.sh" --tag)" 'ENTRYPOINT ["prometheus"]' >Dockerfile
  in_engine docker build -t "$IMAGE" .
}

case ${1:-} in
image) test_image "$IMAGE" "$PUBLISHED" from_debian ;;
crd)
  go=$("$HERE/../tools/build.sh" --go)
  found=$("$go" mod download -json "$OPERATOR")
  field() { sed -n "s|^\t\"$1\": \"\(.*\)\",*$|\1|p" <<<"$found"; }
  [ "$(field Sum)" = "$OPERATOR_SUM" ] || die "$OPERATOR is not what it was: $(field Sum)"
  say "$(field Dir)/example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"
  ;;
*) die "say image or crd" ;;
esac
