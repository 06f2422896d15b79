#!/usr/bin/env bash
# Installs the chart in the kind cluster, in a namespace that enforces Pod Security `restricted`.
# Prints the gateway's address (last line), good for what hack/kind/in.sh runs.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
NAMESPACE=pippin-system

kube() { "$HERE/in.sh" kubectl "$@"; }

kube create namespace "$NAMESPACE" --dry-run=client -o yaml | kube apply -f - >&2
kube label --overwrite namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted >&2
"$HERE/in.sh" helm upgrade --install pippin "$ROOT/charts/pippin" --namespace "$NAMESPACE" \
  -f "$ROOT/charts/pippin/values-kind.yaml" --wait --timeout 180s >&2 || {
  kube -n "$NAMESPACE" get pods,events >&2
  die "the chart's Pods did not become ready within 180 s (see above)"
}
address=$(kube get node pippin-control-plane \
  -o 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}')
port=$(kube -n "$NAMESPACE" get service pippin-gateway -o 'jsonpath={.spec.ports[0].nodePort}')
say "http://$address:$port"
