#!/usr/bin/env bash
# A kind cluster with Pippin's images in it: one control plane, a node with a fake GPU, a plain one.
#
#   up.sh           make it, or bring the one that is up up to date
#   up.sh --check   say in one line why this machine cannot have one (exit 1), and do nothing
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/engine.sh"
# shellcheck source=hack/kind/lib.sh
. "$HERE/lib.sh"

LOGS=$PIPPIN_CACHE/logs
WEIGHTS=${PIPPIN_WEIGHTS:-$PIPPIN_CACHE/models}
IMAGES=(operator gateway server)
INGRESS_IMAGE=pippin-traefik:test # as in ingress.yaml

# programs [SET]: built, with their progress shown; where they lie is not of interest here.
programs() { "$HERE/../tools/build.sh" "$@" | sed '$d'; }

# config: cluster.yaml, with what a node image of our own needs.
config() {
  sed "s|WEIGHTS|$WEIGHTS|" "$HERE/cluster.yaml" |
    if host_docker; then cat; else grep -v '^networking:' && grep -v '^#' "$HERE/bare.yaml"; fi
}

# step WORDS COMMAND...: one step of the story, its output in a log.
step() {
  local words=$1 log
  log=$LOGS/kind-$(printf %s "$1" | tr -c 'a-z0-9\n' -).log
  shift
  watched "$words" "$log" "$@" || {
    tail -n 12 "$log" >&2
    die "$words failed; the whole log is $log"
  }
}

create() {
  config >"$KIND_HOME/cluster.yaml" && in_engine "$KIND" create cluster --name "$CLUSTER" \
    --config "$KIND_HOME/cluster.yaml" --kubeconfig "$KUBECONFIG" ${IMAGE:+--image "$IMAGE"}
}

# network: instead of kind's own CNI: addresses from the node's range, routes to the other nodes,
# and the way back for what Pods ask of this machine (all within the engine's own network).
network() {
  local node range address other other_range other_address
  while read -r node range address; do
    in_engine ip route replace "$range" via "$address" </dev/null || return
    sed "s|RANGE|$range|" "$HERE/node/cni.conflist" |
      in_engine docker exec -i "$node" cp /dev/stdin /etc/cni/net.d/10-pippin.conflist || return
    while read -r other other_range other_address; do
      [ "$node" = "$other" ] || in_engine docker exec "$node" \
        ip route replace "$other_range" via "$other_address" </dev/null || return
    done < <(nodes)
  done < <(nodes)
}

# places: the first worker passes for a node with one NVIDIA GPU, as its operator would label it.
places() {
  local node=$CLUSTER-worker gpu
  gpu='[{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "1"}]'
  with_cluster kubectl label --overwrite node "$node" nvidia.com/gpu.present=true \
    nvidia.com/gpu.product=NVIDIA-L4 &&
    with_cluster kubectl taint --overwrite node "$node" nvidia.com/gpu=present:NoSchedule &&
    with_cluster kubectl patch node "$node" --subresource=status --type=json -p "$gpu"
}

settled() {
  with_cluster kubectl wait node --all --for=condition=Ready --timeout=120s &&
    with_cluster kubectl -n kube-system rollout status deployment/coredns --timeout=120s
}

# enforce: start what makes NetworkPolicies count, and wait until those that are there do.
enforce() {
  local deadline=$((SECONDS + 30)) log=$LOGS/kind-policies.log
  end_policies
  : >"$log"
  PYTHONPATH=$ROOT/hack with_cluster setsid "$VENV/bin/python" -m kind.policies "$POLICIES_PID" \
    >"$log" 2>&1 </dev/null &
  disown
  until grep -qs "are in force" "$log"; do
    [ "$SECONDS" -lt "$deadline" ] || die "nothing enforces NetworkPolicies; see $log"
    sleep 0.2
  done
}

# ingress_controller: an image that holds the one program.
ingress_controller() {
  local programs root
  programs=$("$HERE/../tools/build.sh" ingress | tail -n 1)
  root=$(mktemp -d "${TMPDIR:-/tmp}/pippin-ingress.XXXXXX")
  cp "$programs/traefik" "$root/" && mkdir "$root/tmp" &&
    tar -C "$root" --owner=0 --group=0 --mode=go+rX -c . | in_engine docker import \
      -c 'ENTRYPOINT ["/traefik"]' - "$INGRESS_IMAGE"
  rm -rf "$root"
}

# load: every image where its Pods may run, into both nodes at once. They unpack one when they first
# need it.
load() {
  local version server other
  version=$(version)
  server=pippin-server:$version-mlx
  put "$CLUSTER-worker" "$server" &
  other=$!
  put "$CLUSTER-worker2" "$server" "pippin-operator:$version" "pippin-gateway:$version" \
    "$INGRESS_IMAGE" pippin-prometheus:test pippin-redis:test &&
    wait "$other"
}

# put NODE IMAGE...: into the node's own containerd.
put() {
  local node=$1
  shift
  in_engine docker save "$@" | in_engine docker exec -i "$node" \
    ctr --namespace=k8s.io images import --no-unpack --digests -
}

if [ "${1:-}" = --check ]; then
  host_docker || engine_answers || engine_ground
  exit
fi
mkdir -p "$KIND_HOME" "$LOGS" "$WEIGHTS"
engine_up
IMAGE=${PIPPIN_NODE_IMAGE:-}
"$HERE/../images/build.sh" "${IMAGES[@]}"
programs
if ! host_docker; then
  programs kind
  step "node image" "$HERE/node-image.sh"
  IMAGE=$(tail -n 1 "$LOGS/kind-node-image.log")
fi
programs ingress
step "ingress controller" ingress_controller
step "prometheus" "$HERE/monitoring.sh" image
step "redis" "$HERE/redis.sh"
KIND=$(kind_program | tail -n 1)
PATH=$("$HERE/../tools/build.sh" --where):$PATH
if ! with_cluster kubectl get --raw /readyz >/dev/null 2>&1; then
  [ -z "$(running_nodes)" ] || die "the kind cluster of another checkout is up here;" \
    "end it there first: make kind-down"
  # What is left of one whose engine or machine went down does not come back as it was.
  remove_cluster
  step "cluster" create
fi
host_docker || step "network of the nodes" network
step "places" places
step "nodes ready" settled
host_docker || step "network policies" enforce # kind's own network plugin does it elsewhere
step "images into the nodes" load
say "      the cluster is up: hack/kind/in.sh kubectl get nodes"
