# shellcheck shell=bash
# What up, down and in share. Sourced after hack/lib.sh and engine.sh, never run.

# shellcheck disable=SC2034 # used by the scripts that source this file
CLUSTER=pippin
KIND_HOME=$ROOT/.pippin/kind
export KUBECONFIG=$KIND_HOME/kubeconfig
POLICIES_PID=$KIND_HOME/policies.pid

# kind_program: where a Docker is the machine's own, kind from PATH unless that is older than the
# pinned one, whose node images it would not know; else the pinned one.
kind_program() {
  local have pinned set=kind
  if host_docker; then
    have=$(kind version -q 2>/dev/null || true)
    pinned=$(sed -n 's|.*sigs.k8s.io/kind v\([0-9.]*\).*|\1|p' "$ROOT/hack/tools/kind/kind/go.mod")
    if new_enough "${have:-0}" "$pinned" && command -v kind; then return; fi
    set=kindcli
  fi
  say "$("$ROOT/hack/tools/build.sh" "$set" | tail -n 1)/kind"
}

# with_cluster COMMAND...: run it where the cluster's addresses are reachable.
with_cluster() { in_engine "$@"; }

nodes() { with_cluster kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} '\
'{.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'; }

running_nodes() { in_engine docker ps -q --filter "label=io.x-k8s.kind.cluster=$CLUSTER"; }

# remove_cluster: by kind's own label, so that no kind is needed for what is left of a cluster.
remove_cluster() {
  local containers
  mapfile -t containers < <(in_engine docker ps -aq --filter "label=io.x-k8s.kind.cluster=$CLUSTER")
  [ ${#containers[@]} -eq 0 ] || in_engine docker rm -f -v "${containers[@]}" >/dev/null
}

# end_policies: end what enforces the NetworkPolicies; what it has put into the nodes stays.
end_policies() {
  local pid
  [ -f "$POLICIES_PID" ] || return 0
  pid=$(cat "$POLICIES_PID")
  if grep -qsF "$POLICIES_PID" "/proc/$pid/cmdline"; then kill "$pid"; fi
  rm -f "$POLICIES_PID"
}
