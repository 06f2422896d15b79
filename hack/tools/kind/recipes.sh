# shellcheck shell=bash
# What a kind node is made of, besides the programs of the control plane. Sourced by build.sh.

# shellcheck disable=SC2034 # used by build.sh
PROGRAMS=(kind pause containerd ctr containerd-shim-runc-v2 local-path-provisioner coredns
  kube-proxy kubeadm kubelet)
MODULES=("$TOOLS"/kind/{kind,pause,containerd,storage,coredns,kubernetes})

recipe() {
  local version=k8s.io/component-base/version containerd=github.com/containerd/containerd/v2
  case $1 in
  kind) printf '%s\n' kind/kind sigs.k8s.io/kind '-s -w' ;;
  pause) printf '%s\n' kind/pause . '-s -w' ;;
  containerd* | ctr) printf '%s\n' kind/containerd "$containerd/cmd/$1" \
    "-s -w -X $containerd/version.Version=v2.3.4" 'no_aufs no_zfs no_btrfs no_devmapper' ;;
  local-path-provisioner) printf '%s\n' kind/storage "github.com/rancher/$1" '-s -w' ;;
  coredns) printf '%s\n' kind/coredns github.com/coredns/coredns '-s -w' ;;
  kube*) printf '%s\n' kind/kubernetes "k8s.io/kubernetes/cmd/$1" "-s -w -X \
$version.gitVersion=$K8S -X $version.gitMajor=1 -X $version.gitMinor=36 -X \
k8s.io/client-go/pkg/version.gitVersion=$K8S" ;;
  esac
}
