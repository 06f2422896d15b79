#!/usr/bin/env bash
# Runs the image of the server with vLLM for CPUs as Kubernetes would (a number for a user, a
# read-only root, no capabilities, no network) and has it answer with real weights.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/../kind/engine.sh"
NAME=pippin-smoke-$$
ASK='import json, urllib.request as r
body = {"model": "smollm2", "temperature": 0, "max_tokens": 12,
        "messages": [{"role": "user", "content": "Write a short story about a cat."}]}
request = r.Request("http://127.0.0.1:8000/v1/chat/completions", json.dumps(body).encode(),
                    {"Content-Type": "application/json"})
print(json.load(r.urlopen(request, timeout=60))["choices"][0]["message"]["content"])'

ready() {
  in_engine docker exec "$NAME" python3 -c \
    'import urllib.request as r; r.urlopen("http://127.0.0.1:8000/ready")' 2>/dev/null
}

finish() {
  local status=$?
  [ "$status" = 0 ] || in_engine docker logs --tail 20 "$NAME" >&2 || true
  in_engine docker rm --force "$NAME" >/dev/null 2>&1 || true
  exit "$status"
}

engine_up
WEIGHTS=$("$VENV/bin/python" "$ROOT/hack/weights.py" | tail -n 1)
trap finish EXIT
in_engine docker run --detach --name "$NAME" --network none --read-only --cap-drop ALL \
  --security-opt no-new-privileges --memory 6g --tmpfs /tmp --tmpfs /dev/shm --tmpfs /cache:mode=1777 \
  --volume "$WEIGHTS:/weights:ro" --env PIPPIN_SERVER_CACHE_DIR=/cache \
  "pippin-server:$(version)-vllm-cpu" serve --engine vllm --model /weights --name smollm2 \
  --host 127.0.0.1 --context-length 512 --engine-arg=--dtype=float32 >/dev/null
deadline=$((SECONDS + 300))
until ready; do
  [ "$SECONDS" -lt "$deadline" ] || die "the server was not ready within 300 s"
  in_engine docker ps --quiet --filter "name=$NAME" | grep -q . || die "the server ended"
  sleep 1
done
answer=$(in_engine docker exec "$NAME" python3 -c "$ASK")
say "      it says: $answer"
[[ $answer == "As the sun dipped into the horizon"* ]] || die "that is not what this model says"
in_engine docker stop --timeout 30 "$NAME" >/dev/null
code=$(in_engine docker inspect --format '{{.State.ExitCode}}' "$NAME")
[ "$code" = 0 ] || die "the server ended with $code instead of 0"
