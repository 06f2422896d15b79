#!/usr/bin/env bash
# The end-to-end suite on the kind cluster: the same tests as on the embedded one.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/engine.sh"

DUMP=$ROOT/.pippin/dump

# ingress: where its TLS port answers, on the same node as the gateway's.
ingress() {
  local address=${gateway#http://}
  say "${address%:*}:30443"
}

# here: where the nodes and their Pods reach this machine.
here() { in_engine docker network inspect kind -f '{{(index .IPAM.Config 0).Gateway}}'; }

# dump: what the nodes' services logged, to what the failed tests left.
dump() {
  # shellcheck source=hack/kind/lib.sh
  . "$HERE/lib.sh"
  in_engine "$(kind_program | tail -n 1)" export logs "$DUMP/nodes" --name "$CLUSTER" >/dev/null || true
  chmod -R a+rX "$DUMP"
  die "the suite failed; what the cluster looked like lies in $DUMP"
}

rm -rf "$DUMP"
gateway=$("$HERE/install.sh" | tail -n 1)
# The nodes see the cache of the weights as /models.
model=$("$VENV/bin/python" "$ROOT/hack/weights.py" | tail -n 1)
crd=$("$HERE/monitoring.sh" crd | tail -n 1)
cd "$ROOT"
# Only root sees the environment of a container's processes, and may signal them.
if [ "$(id -u)" = 0 ]; then export PIPPIN_E2E_SAME_MACHINE=1; fi
PIPPIN_E2E_GATEWAY_URL=$gateway PIPPIN_E2E_HOST_ADDRESS=$(here) PIPPIN_E2E_DUMP=$DUMP \
  PIPPIN_E2E_MAY_UNINSTALL=1 PIPPIN_E2E_SERVICEMONITOR_CRD=$crd \
  PIPPIN_E2E_INGRESS_URL=https://$(ingress) PIPPIN_E2E_INGRESS_HOST=pippin.test \
  PIPPIN_E2E_INGRESS_CA=$ROOT/.pippin/kind/pki/ca.crt \
  PIPPIN_E2E_WEIGHTS_URI=file:///models/${model#"$PIPPIN_CACHE/models/"} \
  "$HERE/in.sh" "$VENV/bin/python" -m pytest tests/e2e "$@" || dump
