# shellcheck shell=bash
# What the scripts of hack/ share: where things lie and how they speak. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export HOME=${HOME:-~}
# shellcheck disable=SC2034 # used by the scripts that source this file
PIPPIN_CACHE=${PIPPIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pippin}
# shellcheck disable=SC2034
VENV=$ROOT/.venv

say() { printf '%s\n' "$*"; }

# version: of Pippin, as images and chart carry it.
version() { "$VENV/bin/python" -c 'import pippin_contract; print(pippin_contract.__version__)'; }

# die WORDS...: say what went wrong and what to do, one line each, and stop.
die() {
  printf 'error: %s\n' "$1" >&2
  shift
  if [ $# -gt 0 ]; then printf '       %s\n' "$@" >&2; fi
  exit 1
}

# watched LABEL LOG COMMAND...: run with its output in LOG, say every 15 s that it still runs and
# what it said last, and say at the end how long it took.
watched() {
  local label=$1 log=$2 begun=$SECONDS pid status=0 next=15
  shift 2
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  # shellcheck disable=SC2064 # the pid of now
  trap "kill $pid 2>/dev/null; wait $pid 2>/dev/null; exit 130" INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    if [ $((SECONDS - begun)) -ge "$next" ]; then
      next=$((next + 15))
      say "      $label: $((SECONDS - begun)) s so far: $(tail -n 1 "$log" | cut -c 1-100)"
    fi
    sleep 0.2
  done
  wait "$pid" || status=$?
  trap - INT TERM
  [ "$status" -ne 0 ] || say "      $label: done in $((SECONDS - begun)) s"
  return "$status"
}

# A Mac has neither sha256sum nor flock, but the perl that stands in for both.
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; }

# locked FD WORDS: have the lock on the open file FD; say WORDS first if another has it.
locked() {
  if command -v flock >/dev/null; then
    flock -n "$1" || { say "$2" && flock "$1"; }
  else
    perl -e 'open my $f, "<&=", shift or die "$!\n"; flock $f, 2 or die "$!\n"' "$1"
  fi
}

# new_enough HAVE WANT: whether dotted version HAVE is at least WANT.
new_enough() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
