"""What a fresh cluster must hold before a node can join: rights, and tokens that run out."""

from __future__ import annotations

import datetime as dt
import secrets
import string
from typing import Any

from .api import Api
from .credentials import APPROVER_USER, KUBELET_CLIENT_USER

_RBAC = "rbac.authorization.k8s.io"
_BINDINGS = f"/apis/{_RBAC}/v1/clusterrolebindings"
_ROLES = f"/apis/{_RBAC}/v1/clusterroles"
_SECRETS = "/api/v1/namespaces/kube-system/secrets"
_CSR = "certificates.k8s.io"
_REQUESTS = f"system:{_CSR}:certificatesigningrequests"
_TOKEN_HOURS = 24


def grant(api: Api) -> None:
    """Nodes may join and renew; the API server may call them; the approver may approve."""
    for name, role, kind, subject in (
        ("node-bootstrapper", "system:node-bootstrapper", "Group", "system:bootstrappers"),
        ("approve-join", f"{_REQUESTS}:nodeclient", "Group", "system:bootstrappers"),
        ("approve-renewal", f"{_REQUESTS}:selfnodeclient", "Group", "system:nodes"),
        ("kubelet-api", "system:kubelet-api-admin", "User", KUBELET_CLIENT_USER),
        ("serving-approver", "pippin:serving-approver", "User", APPROVER_USER),
    ):
        api.ensure(_BINDINGS, _binding(f"pippin:{name}", role, kind, subject))
    api.ensure(_ROLES, _approver_role())


def mint_token(api: Api, now: dt.datetime) -> str:
    """A bootstrap token `id.secret` that lets one machine ask for its certificate, for a day."""
    alphabet = string.ascii_lowercase + string.digits
    token_id, secret = (
        "".join(secrets.choice(alphabet) for _ in range(length)) for length in (6, 16)
    )
    expires = (now + dt.timedelta(hours=_TOKEN_HOURS)).strftime("%Y-%m-%dT%H:%M:%SZ")
    api.create(
        _SECRETS,
        {
            "metadata": {"name": f"bootstrap-token-{token_id}"},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": token_id,
                "token-secret": secret,
                "expiration": expires,
                "usage-bootstrap-authentication": "true",
            },
        },
    )
    return f"{token_id}.{secret}"


def _binding(name: str, role: str, kind: str, subject: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": kind, "name": subject}],
    }


def _approver_role() -> dict[str, Any]:
    requests, group = "certificatesigningrequests", [_CSR]
    return {
        "metadata": {"name": "pippin:serving-approver"},
        "rules": [
            {"apiGroups": group, "resources": [requests], "verbs": ["list", "watch"]},
            {"apiGroups": group, "resources": [f"{requests}/approval"], "verbs": ["update"]},
            {
                "apiGroups": group,
                "resources": ["signers"],
                "resourceNames": ["kubernetes.io/kubelet-serving"],
                "verbs": ["approve"],
            },
        ],
    }
