#!/usr/bin/env bash
# Makes kind's node image on a machine that reaches no image registry: Debian packages, the
# programs of hack/tools and the files of kind's own module. Prints the image's name (last line).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/engine.sh"

K8S=v1.36.3
# bookworm: its systemd still runs on cgroup v1.
SUITE=bookworm
PACKAGES=systemd,systemd-sysv,dbus,iptables,nftables,conntrack,iproute2,ethtool,util-linux,mount,\
kmod,jq,procps,curl,ca-certificates,runc,containernetworking-plugins,busybox-static
PROGRAMS=$("$HERE/../tools/build.sh" | tail -n 1)
NODE_PROGRAMS=$("$HERE/../tools/build.sh" kind | tail -n 1)
GO=$("$HERE/../tools/build.sh" --go)
KEY=$({ cat "$HERE/node-image.sh" "$HERE"/node/* && echo "$PROGRAMS $NODE_PROGRAMS"; } |
  sha256sum | cut -c 1-12)
NODE=pippin-node-image:$K8S-$KEY

# root_of_node DIR: Debian with systemd, the runtime and the kubelet, as kind's Dockerfile has it.
root_of_node() {
  local root=$1 files=$KIND/images/base/files plugin
  debootstrap --variant=minbase "--include=$PACKAGES" "$SUITE" "$root" \
    ${PIPPIN_DEBIAN_MIRROR:+"$PIPPIN_DEBIAN_MIRROR"}
  mkdir -p "$root"/{kind/bin,kind/manifests,opt/cni/bin,etc/containerd} \
    "$root"/etc/{default,sysctl.d,cni/net.d,kubernetes/manifests} \
    "$root"/etc/systemd/system/kubelet.service.d "$root"/usr/local/{bin,sbin}
  install -m 0755 "$files"/usr/local/bin/* "$root/usr/local/bin/"
  install -m 0755 "$files"/kind/bin/* "$root/kind/bin/"
  install -m 0644 "$files"/etc/crictl.yaml "$root/etc/"
  install -m 0644 "$files"/etc/containerd/config.toml "$root/etc/containerd/"
  install -m 0644 "$files"/etc/default/kubelet "$root/etc/default/"
  install -m 0644 "$files"/etc/sysctl.d/* "$root/etc/sysctl.d/"
  install -m 0644 "$files"/etc/systemd/system/*.{service,slice} "$root/etc/systemd/system/"
  install -m 0644 "$files"/etc/systemd/system/kubelet.service.d/* \
    "$root/etc/systemd/system/kubelet.service.d/"
  install -m 0755 "$NODE_PROGRAMS"/{containerd,ctr,containerd-shim-runc-v2} "$root/usr/local/bin/"
  install -m 0755 "$NODE_PROGRAMS"/{kubelet,kubeadm} "$PROGRAMS/kubectl" "$root/usr/bin/"
  ln -s /usr/sbin/runc "$root/usr/local/sbin/runc"
  for plugin in host-local loopback ptp portmap; do
    cp "$root/usr/lib/cni/$plugin" "$root/opt/cni/bin/"
  done
  printf %s "$K8S" >"$root/kind/version"
  # Machines that withhold CAP_SYS_RESOURCE refuse a negative score; elsewhere it is clamped too.
  sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
    "$root/etc/containerd/config.toml"
  "$NODE_PROGRAMS/ctr" oci spec | jq '.hooks.createContainer[0] =
    {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' \
    >"$root/etc/containerd/cri-base.json"
  python3 "$HERE/node/storage.py" "$KIND/pkg/build/nodeimage/const_storage.go" \
    >"$root/kind/manifests/default-storage.yaml"
  python3 "$HERE/node/entrypoint.py" "$root/usr/local/bin/entrypoint"
  cp "$HERE/node/setup.sh" "$root/setup.sh"
  chroot "$root" sh /setup.sh
  rm "$root/setup.sh"
}

# import DIR NAME [CHANGE]: a folder as an image.
import() {
  tar -C "$1" --numeric-owner -c . | in_engine docker import \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    ${3:+-c "$3"} - "$2" >/dev/null
  COMPONENTS+=("$2")
}

# one_program NAME IMAGE FROM [ENTRYPOINT]: an image that holds one static program.
one_program() {
  mkdir -p "$WORK/$1"/{usr/local/bin,tmp}
  cp "$3/$1" "$WORK/$1/usr/local/bin/"
  import "$WORK/$1" "$2" "${4:+ENTRYPOINT [\"/usr/local/bin/$1\"]}"
}

# wanted NAME: the image that kubeadm asks for.
wanted() { "$NODE_PROGRAMS/kubeadm" config images list --kubernetes-version "$K8S" | grep "/$1:"; }

# stored NAME: the image that kind's storage manifest asks for.
stored() { grep -oE "[^ \"]+/$1:[^ \"]+" "$WORK/node/kind/manifests/default-storage.yaml" |
  head -n 1; }

components() {
  local name
  for name in kube-apiserver kube-controller-manager kube-scheduler; do
    one_program "$name" "$(wanted "$name")" "$PROGRAMS"
  done
  one_program etcd "$(wanted etcd)" "$PROGRAMS"
  one_program coredns "$(wanted coredns)" "$NODE_PROGRAMS" entrypoint
  one_program pause "$(sandbox)" "$NODE_PROGRAMS" entrypoint
  one_program local-path-provisioner "$(stored local-path-provisioner)" "$NODE_PROGRAMS"
  mkdir -p "$WORK/helper/bin"
  cp "$WORK/node/bin/busybox" "$WORK/helper/bin/"
  for name in sh mkdir rm; do ln -s busybox "$WORK/helper/bin/$name"; done
  import "$WORK/helper" "$(stored local-path-helper)"
  proxy_root "$WORK/proxy"
  import "$WORK/proxy" "$(wanted kube-proxy)"
}

# sandbox: the pause image that the node's containerd asks for.
sandbox() { sed -n 's/^ *sandbox_image = "\(.*\)"/\1/p' "$WORK/node/etc/containerd/config.toml"; }

# proxy_root DIR: kube-proxy and what it runs. The xtables plugins are libraries with needs of their
# own: without them a Service with two endpoints answers nobody and nothing says why.
proxy_root() {
  local root=$1 program library libraries
  libraries=usr/lib/$(uname -m)-linux-gnu
  mkdir -p "$root"/{usr/local/bin,bin,tmp,run,lib/modules,lib64,"$libraries"}
  cp "$NODE_PROGRAMS/kube-proxy" "$root/usr/local/bin/"
  cp "$WORK/node/bin/busybox" "$root/bin/"
  ln -s busybox "$root/bin/sh"
  cp -a "$WORK/node/$libraries/xtables" "$root/$libraries/"
  for program in usr/sbin/{xtables-nft-multi,nft,conntrack} \
    "$libraries"/xtables/libxt_{statistic,limit}.so; do
    install -D "$WORK/node/$program" "$root/$program"
    while read -r library; do
      mkdir -p "$root${library%/*}"
      cp -Ln "$WORK/node$library" "$root$library"
    done < <(chroot "$WORK/node" ldd "/$program" | grep -oE '/(usr/)?lib[^ ]+')
  done
  for program in {ip,ip6}tables{,-save,-restore}; do
    ln -s xtables-nft-multi "$root/usr/sbin/$program"
  done
  chroot "$root" /usr/sbin/iptables --version
}

# fill CONTAINER: load the components into the node's own containerd, as kind's builder does.
fill() {
  local deadline=$((SECONDS + 60))
  in_engine docker exec -d "$1" containerd
  until in_engine docker exec "$1" ctr version >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || die "containerd does not start in the node"
    sleep 0.3
  done
  in_engine docker save "${COMPONENTS[@]}" | in_engine docker exec -i "$1" \
    ctr --namespace=k8s.io images import --all-platforms --no-unpack --digests -
  in_engine docker exec "$1" ctr -n k8s.io images ls -q
  # shellcheck disable=SC2016 # the node's shell expands it
  in_engine docker exec "$1" sh -c 'kill -TERM $(pidof containerd); while pidof containerd; do
    sleep 0.2; done'
}

make_node() {
  KIND=$(cd "$HERE/../tools/kind/kind" && "$GO" list -m -f '{{.Dir}}' sigs.k8s.io/kind)
  COMPONENTS=()
  root_of_node "$WORK/node"
  import "$WORK/node" pippin-node-root:partial
  COMPONENTS=()
  components
  in_engine docker rm -f pippin-node-partial >/dev/null 2>&1 || true
  in_engine docker run -d --name pippin-node-partial --entrypoint sleep \
    --security-opt seccomp=unconfined pippin-node-root:partial infinity
  fill pippin-node-partial
  in_engine docker commit --change 'ENV container=docker' \
    --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' \
    pippin-node-partial pippin-node-filled:partial
  in_engine docker rm -f pippin-node-partial
  # Neither import nor commit can set it.
  printf 'FROM pippin-node-filled:partial\nSTOPSIGNAL SIGRTMIN+3\n' |
    in_engine docker build -t "$NODE" -
  in_engine docker image rm "${COMPONENTS[@]}" >/dev/null
}

if ! in_engine docker image inspect "$NODE" >/dev/null 2>&1; then
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/pippin-node.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  make_node
fi
say "$NODE"
