#!/usr/bin/env bash
# Runs a command where the kind cluster's addresses are reachable, with its KUBECONFIG:
#   hack/kind/in.sh kubectl get pods -A
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/engine.sh"
# shellcheck source=hack/kind/lib.sh
. "$HERE/lib.sh"

[ -f "$KUBECONFIG" ] || die "no kind cluster is up: make kind"
PATH=$("$HERE/../tools/build.sh" --where):$PATH
with_cluster "$@"
