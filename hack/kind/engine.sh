# shellcheck shell=bash
# The container engine that images and kind use. Sourced after hack/lib.sh, never run.
# Where a Docker answers, it is that one. On a bare machine (Linux, root) it is a dockerd of our
# own in network and mount namespaces of our own, so that nothing of it reaches the machine's
# network: containers see each other and loopback, never a way out.

# A folder of its own per user and machine; its images are the cache between runs.
ENGINE_HOME=${PIPPIN_ENGINE_HOME:-$PIPPIN_CACHE/engine}
ENGINE_NET=pippin-kind
ENGINE_SYSCTLS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
  kernel.keys.root_maxkeys kernel.keys.root_maxbytes fs.inotify.max_user_instances
  fs.inotify.max_user_watches)
ENGINE_PACKAGES=(docker.io debootstrap runc iptables jq zstd)

host_docker() { [ -z "${PIPPIN_ENGINE_OWN:-}" ] && docker info >/dev/null 2>&1; }

# in_engine COMMAND...: run it where the engine's sockets and networks are.
in_engine() {
  if host_docker; then
    "$@"
    return
  fi
  DOCKER_HOST=unix://$ENGINE_HOME/docker.sock DOCKER_BUILDKIT=0 \
    nsenter "--net=/run/netns/$ENGINE_NET" "$@"
}

# engine_up: have an engine that answers, or say in one line what is missing.
engine_up() {
  if host_docker || engine_answers; then return; fi
  engine_ground
  [ ${#ENGINE_MISSING[@]} -eq 0 ] || engine_install "${ENGINE_MISSING[@]}"
  say "      starting a container engine in a network namespace of its own"
  engine_remember
  mkdir -p "$ENGINE_HOME/run"
  [ -e "/run/netns/$ENGINE_NET" ] || ip netns add "$ENGINE_NET"
  nsenter "--net=/run/netns/$ENGINE_NET" ip link set lo up
  # Privileged containers need the wrapper where the machine gives less than every capability.
  PATH=$PATH:/usr/sbin:/sbin setsid nsenter "--net=/run/netns/$ENGINE_NET" \
    unshare --mount --propagation private dockerd \
    --data-root "$ENGINE_HOME/data" --exec-root "$ENGINE_HOME/run" \
    --pidfile "$ENGINE_HOME/dockerd.pid" --host "unix://$ENGINE_HOME/docker.sock" \
    --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 \
    --add-runtime "as-allowed=$ROOT/hack/kind/runc-as-allowed" --default-runtime as-allowed \
    >"$ENGINE_HOME/dockerd.log" 2>&1 </dev/null &
  disown
  local deadline=$((SECONDS + 60))
  until engine_answers; do
    [ "$SECONDS" -lt "$deadline" ] || {
      tail -n 5 "$ENGINE_HOME/dockerd.log" >&2
      die "dockerd did not answer within 60 s; its log is $ENGINE_HOME/dockerd.log"
    }
    sleep 0.3
  done
}

engine_answers() {
  [ -S "$ENGINE_HOME/docker.sock" ] && [ -e "/run/netns/$ENGINE_NET" ] &&
    DOCKER_HOST=unix://$ENGINE_HOME/docker.sock docker info >/dev/null 2>&1
}

# engine_ground: whether this machine can run an engine of our own; touches nothing.
engine_ground() {
  local controller free
  [ "$(uname -s)" = Linux ] || die "no Docker answers here: start Docker, then run again"
  [ "$(id -u)" = 0 ] || die "no Docker answers here, and only root can start one: start Docker," \
    "or run again as root"
  for controller in cpu memory pids devices; do
    [ -d "/sys/fs/cgroup/$controller" ] || [ -f /sys/fs/cgroup/cgroup.controllers ] ||
      die "the cgroup controller $controller is not mounted under /sys/fs/cgroup"
  done
  unshare --mount --net true || die "this machine lets nobody make network and mount namespaces"
  mkdir -p "$ENGINE_HOME"
  free=$(df --output=avail -BG "$ENGINE_HOME" | tail -n 1 | tr -dc 0-9)
  [ "$free" -ge 12 ] || die "$ENGINE_HOME has $free GB free; images and nodes want 12"
  mapfile -t ENGINE_MISSING < <(engine_missing)
  if [ ${#ENGINE_MISSING[@]} -eq 0 ]; then return; fi
  if [ -d /run/systemd/system ] || ! command -v apt-get >/dev/null; then
    die "the container engine needs: ${ENGINE_MISSING[*]}" \
      "apt-get install --no-install-recommends ${ENGINE_MISSING[*]}"
  fi
}

engine_missing() {
  local package
  for package in "${ENGINE_PACKAGES[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      say "$package"
  done
}

# A machine whose systemd would start a dockerd on its own network is never installed on: its owner
# does that, as engine_ground says.
engine_install() {
  local how="apt-get install --no-install-recommends $*"
  say "      $how"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy \
    --no-install-recommends "$@"; } >"$ENGINE_HOME/apt.log" 2>&1 </dev/null ||
    die "$how failed; its log is $ENGINE_HOME/apt.log"
}

# engine_remember: note what containers change on the machine, to put it back in engine_down.
engine_remember() {
  local name
  [ ! -f "$ENGINE_HOME/before" ] || return 0
  for name in "${ENGINE_SYSCTLS[@]}"; do
    printf 'sysctl %s %s\n' "$name" "$(sysctl -n "$name" 2>/dev/null || true)"
  done >"$ENGINE_HOME/before.partial"
  for name in /sys/fs/cgroup/docker /sys/fs/cgroup/*/docker /lib/modules /etc/docker \
    /opt/containerd; do
    [ -e "$name" ] && printf 'folder %s\n' "$name" >>"$ENGINE_HOME/before.partial"
  done
  mv "$ENGINE_HOME/before.partial" "$ENGINE_HOME/before"
}

# engine_down: end the engine of our own and put back what it touched; its images stay, cached.
engine_down() {
  local pid deadline
  if [ -f "$ENGINE_HOME/dockerd.pid" ]; then
    pid=$(cat "$ENGINE_HOME/dockerd.pid")
    if grep -qs "$ENGINE_HOME" "/proc/$pid/cmdline"; then
      kill "$pid"
      deadline=$((SECONDS + 30))
      while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || die "dockerd (pid $pid) does not end"
        sleep 0.2
      done
    fi
    rm -f "$ENGINE_HOME/dockerd.pid" "$ENGINE_HOME/docker.sock"
  fi
  if [ -e "/run/netns/$ENGINE_NET" ]; then ip netns delete "$ENGINE_NET"; fi
  if [ -f "$ENGINE_HOME/before" ]; then engine_restore; fi
}

engine_restore() {
  local kind name value
  while read -r kind name value; do
    if [ "$kind" = sysctl ] && [ -n "$value" ] && [ "$(sysctl -n "$name")" != "$value" ]; then
      sysctl -qw "$name=$value"
    fi
  done <"$ENGINE_HOME/before"
  for name in /sys/fs/cgroup/docker /sys/fs/cgroup/*/docker /lib/modules /etc/docker \
    /opt/containerd; do
    if [ ! -d "$name" ] || grep -qx "folder $name" "$ENGINE_HOME/before"; then continue; fi
    # Only folders, only empty ones, the deepest first.
    find "$name" -depth -type d -exec rmdir --ignore-fail-on-non-empty {} + 2>/dev/null || true
  done
  rm -f "$ENGINE_HOME/before"
}

# test_image IMAGE PUBLISHED COMMAND...: unless it is there, the published one under that name, or,
# where no registry can be reached, what the command makes.
test_image() {
  local image=$1 published=$2
  shift 2
  if in_engine docker image inspect "$image" >/dev/null 2>&1; then return; fi
  if host_docker; then
    docker pull "$published" && docker tag "$published" "$image"
  else
    "$@"
  fi
}
