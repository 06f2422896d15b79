#!/usr/bin/env bash
# Installs the chart in the kind cluster, in a namespace that enforces Pod Security `restricted`,
# behind an ingress controller that serves pippin.test over TLS.
# Prints the gateway's address (last line), good for what hack/kind/in.sh runs.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/engine.sh"
NAMESPACE=pippin-system
HOST=pippin.test
CLOSED=e2e-closed # whose servers answer the gateway only
PKI=$ROOT/.pippin/kind/pki

kube() { "$HERE/in.sh" kubectl "$@"; }

# image_id NAME: of what the engine has under that name; other content makes the Pods roll.
image_id() { in_engine docker image inspect -f '{{.Id}}' "pippin-$1:$(version)"; }

# certificate: for HOST, by an authority of the test cluster's own.
certificate() {
  mkdir -p "$PKI"
  [ -f "$PKI/ingress.crt" ] || PYTHONPATH=$ROOT/hack "$VENV/bin/python" -c '
import sys
from pathlib import Path
from cluster.pki import Authority, Subject
from cryptography.x509 import ExtendedKeyUsageOID
authority = Authority(Path(sys.argv[1]), "ca")
authority.issue("ingress", Subject("ingress", dns=(sys.argv[2],)), ExtendedKeyUsageOID.SERVER_AUTH)
' "$PKI" "$HOST"
}

kube create namespace "$NAMESPACE" --dry-run=client -o yaml | kube apply -f - >&2
kube label --overwrite namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted >&2
kube create namespace "$CLOSED" --dry-run=client -o yaml | kube apply -f - >&2
certificate >&2
kube -n "$NAMESPACE" create secret tls pippin-gateway-tls --cert="$PKI/ingress.crt" \
  --key="$PKI/ingress.key" --dry-run=client -o yaml | kube apply -f - >&2
kube apply -f "$HERE/ingress.yaml" >&2
kube -n ingress rollout status deployment/traefik --timeout=120s >&2
values() {
  cat <<END
ingress: {enabled: true, className: traefik, host: $HOST, tls: {enabled: true}}
networkPolicy: {serverNamespaces: [$CLOSED]}
operator: {podAnnotations: {test/image: "$(image_id operator)"}}
gateway: {replicas: 2, podAnnotations: {test/image: "$(image_id gateway)"}}
redis: {image: "pippin-redis:test"}
crds: {keep: true}
END
}

values | "$HERE/in.sh" helm upgrade --install pippin "$ROOT/charts/pippin" \
  --namespace "$NAMESPACE" -f "$ROOT/charts/pippin/values-kind.yaml" -f - \
  --wait --timeout 180s >&2 || {
  kube -n "$NAMESPACE" get pods,events >&2
  die "the chart's Pods did not become ready within 180 s (see above)"
}
address=$(kube get node pippin-control-plane \
  -o 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}')
port=$(kube -n "$NAMESPACE" get service pippin-gateway -o 'jsonpath={.spec.ports[0].nodePort}')
say "http://$address:$port"
