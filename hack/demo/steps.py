"""The steps of the demo. Each may run again: what is there already is left as it is."""

from __future__ import annotations

import json
import os
import platform
import re
import string
import subprocess
import time
from pathlib import Path
from typing import Any

import weights
from cluster import binaries
from cluster.components import FULL
from cluster.stack import NAMESPACE, NODE, Stack

from . import answer
from .story import Failed, Story

MODEL, KEY = "smollm2", "demo"
_MANIFESTS = Path(__file__).parent
_READY_SECONDS = 300
_PAUSE = 0.5


def run(state: Path, story: Story) -> None:
    """Steps two to six (hack/demo.sh has made the tools), then how to go on."""
    begun = time.monotonic()
    logs = state / "logs"
    with story.step(2, "control plane", logs):
        stack = _open_or_create(state, story)
        stack.start_control_plane()
        story.say(f"{', '.join(FULL)}: ready at {stack.plane.url}, logs in {logs}")
    with story.step(3, "this machine joins as a node", stack.plane.processes.log(NODE)):
        _join(stack, story)
    with story.step(4, f"helm install pippin into {NAMESPACE}", stack.node_root / "pods"):
        stack.install_chart()
        story.say(stack.plane.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide"))
    with story.step(5, "a real model and a key", stack.node_root / "pods"):
        directory = weights.prepare(story.say)
        story.say(f"weights: {directory}")
        _apply(stack, directory, story)
        _wait_ready(stack, story)
    with story.step(6, "a chat answer, streamed through the gateway", stack.node_root / "pods"):
        key = answer.read_key(stack.plane, KEY)
        answer.stream(f"{stack.gateway_url}/v1", key, MODEL, story)
    story.plain()
    _next_steps(stack, story, time.monotonic() - begun)


def remove(state: Path, story: Story) -> None:
    """End and remove everything that `run` made, however far it came."""
    if not state.exists():
        story.plain(f"nothing to remove: there is no demo in {state}")
        return
    story.plain(f"removing the demo in {state}")
    try:
        stack = Stack.open(state)
    except (FileNotFoundError, ValueError, KeyError):
        raise Failed(f"{state} holds no demo of this version; remove it by hand") from None
    stack.remove()
    story.plain("removed: every process that ran from it has ended, the directory is gone")


def node_name(host: str) -> str:
    """A host's name as Kubernetes wants it."""
    return re.sub(r"[^a-z0-9-]+", "-", host.lower()).strip("-")[:60] or "this-machine"


def _open_or_create(state: Path, story: Story) -> Stack:
    if state.exists():
        story.say(f"a demo is here already, in {state}: going on with it")
        return Stack.open(state)
    return Stack.create(state, binaries.directory(), durable=True)


def _join(stack: Stack, story: Story) -> None:
    name = node_name(platform.node())
    # The one place of this machine that Pods may be shown.
    models = weights.home()
    models.mkdir(parents=True, exist_ok=True)
    if stack.plane.processes.running(NODE):
        story.say(f"node {name} is here already")
    elif stack.plane.api.ok(f"/api/v1/nodes/{name}"):
        stack.start_node(name, [models])
    else:
        stack.join_node(name, [models])
    story.say(stack.plane.kubectl("get", "nodes", "-o", "wide"))


def _apply(stack: Stack, directory: Path, story: Story) -> None:
    for file in ("model.yaml", "apikey.yaml"):
        text = string.Template((_MANIFESTS / file).read_text()).substitute(WEIGHTS=directory)
        applied = stack.plane.kubectl("apply", "--server-side", "-f", "-", stdin=text)
        story.say(f"kubectl apply -f hack/demo/{file}: {applied.strip()}")


def _wait_ready(stack: Stack, story: Story) -> None:
    """`kubectl wait`, with every change of the model's state told meanwhile."""
    kubectl = [str(stack.plane.binaries / "kubectl"), f"--kubeconfig={stack.plane.kubeconfig}"]
    waiting = subprocess.Popen(
        [
            *(*kubectl, "wait", "--for=condition=Ready", f"mdep/{MODEL}", f"apikey/{KEY}"),
            f"--timeout={_READY_SECONDS}s",
        ],
        env=stack.plane.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    told = ""
    try:
        while waiting.poll() is None:
            if (state := _state(stack)) != told:
                story.say(told := state)
            time.sleep(_PAUSE)
    finally:
        waiting.kill()
        words, _ = waiting.communicate()
    if waiting.returncode:
        described = stack.plane.kubectl("describe", "mdep", MODEL)
        raise Failed(f"{words.strip()}\n\n{described}")
    story.say(words)


def _state(stack: Stack) -> str:
    """The model's Ready condition in one line."""
    model: dict[str, Any] = json.loads(stack.plane.kubectl("get", "mdep", MODEL, "-o", "json"))
    for condition in model.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            return f"Ready={condition['status']} {condition['reason']}: {condition['message']}"
    return "no status yet"


def _next_steps(stack: Stack, story: Story, seconds: float) -> None:
    plane, url = stack.plane, f"{stack.gateway_url}/v1"
    for what in ("mdep,ak", "pods"):
        story.plain(plane.kubectl("get", what, "-A"))
    environment = plane.state / "env.sh"
    environment.write_text(
        f"export KUBECONFIG='{plane.kubeconfig}' PATH='{plane.binaries}':\"$PATH\"\n"
        f"export OPENAI_BASE_URL={url}\n"
        f"OPENAI_API_KEY=$(kubectl get secret {KEY}-apikey -o jsonpath='{{.data.api-key}}' |"
        " base64 -d)\n"
        "export OPENAI_API_KEY\n"
    )
    shown = Path(os.path.relpath(environment))
    story.plain(
        f"""Up after {seconds:.0f} s, and it stays up. The endpoint is {url}

Call it yourself:
  . {shown}
  curl -N $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{MODEL}", "stream": true, "messages": [{{"role": "user", "content": "Hi"}}]}}'

Look around (after the line with env.sh):
  kubectl get mdep,ak,pods -A
  kubectl describe mdep {MODEL}
  kubectl explain mdep.spec.model
  kubectl logs -f -l app.kubernetes.io/instance={MODEL}
  kubectl scale mdep {MODEL} --replicas=2

Serve something else: hack/demo/model.yaml shows how, crds/samples has more, docs/ the rest.
End and remove everything: make demo-down"""
    )
