"""Names that more than one process must agree on: API group, labels, ports, paths, headers."""

from __future__ import annotations

from typing import Final

GROUP: Final = "pippin.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
MODELDEPLOYMENTS: Final = "modeldeployments"
APIKEYS: Final = "apikeys"

# Labels of every child object. The first two select a ModelDeployment's Pods and never change.
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
SERVER_APP: Final = "pippin-server"
MANAGER: Final = "pippin"
#: Pods that the gateway may route to; their instance label is the ModelDeployment's name.
SERVER_POD_SELECTOR: Final = f"{LABEL_NAME}={SERVER_APP},{LABEL_MANAGED_BY}={MANAGER}"

#: The gateways, in Pippin's own namespace.
GATEWAY_POD_SELECTOR: Final = f"{LABEL_NAME}=pippin-gateway"

#: Pod condition (status True) whose message is the URL by which the gateway reaches a native Pod.
ENDPOINT_CONDITION: Final = f"{GROUP}/Endpoint"
#: Annotation on an APIKey: any new value mints a new key.
ROTATE_ANNOTATION: Final = f"{GROUP}/rotate"

HTTP_PORT_NAME: Final = "http"
SERVER_PORT: Final = 8000
GATEWAY_PORT: Final = 8080
OPERATOR_PORT: Final = 8081

SERVER_CONFIG_DIR: Final = "/etc/pippin/server"
SERVER_CONFIG_FILE: Final = f"{SERVER_CONFIG_DIR}/server.json"
GATEWAY_CONFIG_FILE: Final = "/etc/pippin/gateway/gateway.json"
SIGNING_KEY_DIR: Final = "/etc/pippin/signing"
#: Files `password` and `ca.crt` of the Redis in which gateways count together.
REDIS_SECRET_DIR: Final = "/etc/pippin/redis"
#: What the gateway knew of the cluster, for its next start.
SNAPSHOT_DIR: Final = "/var/lib/pippin/snapshot"
MODEL_DIR: Final = "/models"
ADAPTER_DIR: Final = "/adapters"
CACHE_DIR: Final = "/var/cache/pippin"
TERMINATION_LOG: Final = "/dev/termination-log"

#: Secret in Pippin's own namespace with the gateway's Ed25519 private keys (PKCS8 PEM).
SIGNING_SECRET: Final = "pippin-gateway-signing"
SIGNING_CURRENT: Final = "current.pem"
SIGNING_NEXT: Final = "next.pem"
#: Secret of the same kind with the token for the gateways' /admin paths, and where it is mounted.
ADMIN_SECRET: Final = "pippin-gateway-admin"
ADMIN_TOKEN: Final = "token"
ADMIN_DIR: Final = "/etc/pippin/admin"
#: Secret there with the keys of providers outside (pippin_contract.providers), and where a further
#: authority for their certificates is mounted as `ca.crt`.
PROVIDERS_SECRET: Final = "pippin-gateway-providers"
PROVIDER_CA_DIR: Final = "/etc/pippin/provider-ca"
#: What only that token opens: what keys used, how much models are asked for, how a request fared,
#: DELETE of kept answers.
ADMIN_PATH: Final = "/admin/"
USAGE_PATH: Final = f"{ADMIN_PATH}usage"
DEMAND_PATH: Final = f"{ADMIN_PATH}demand"
REQUESTS_PATH: Final = f"{ADMIN_PATH}requests/"
CACHE_PATH: Final = f"{ADMIN_PATH}cache/"
TOKEN_ISSUER: Final = "pippin-gateway"
TOKEN_LIFETIME_SECONDS: Final = 60

#: Keys inside the Secret that the owner of an APIKey reads.
SECRET_API_KEY: Final = "api-key"
SECRET_BASE_URL: Final = "base-url"

REQUEST_ID_HEADER: Final = "x-request-id"
#: Of an answer that may not be JSON: `prompt=12, completion=3`, its tokens.
USAGE_HEADER: Final = "x-pippin-usage"
#: Pictures that a server keeps for a while, by their names; no key is asked for them.
PICTURES_PATH: Final = "/v1/images/files/"
#: Of a request: the URL below which the client finds such pictures.
PICTURES_HEADER: Final = "x-pippin-pictures"
SERVED_BY_HEADER: Final = "x-pippin-served-by"
#: Models that could not answer before the one that did: model=reason, and more by commas.
FALLBACK_HEADER: Final = "x-pippin-fallback"

#: sysexits' EX_CONFIG: the configuration or the model is wrong and a restart will not mend it.
EXIT_CONFIG: Final = 78


def audience(namespace: str, name: str) -> str:
    """The `aud` claim of the gateway's token for one ModelDeployment."""
    return f"{namespace}/{name}"


def termination_message(reason: str, message: str) -> str:
    """What a dying server writes for `kubectl describe`: a reason of the status, then its words."""
    return f"{reason}: {message}"


def parse_termination_message(text: str) -> tuple[str | None, str]:
    """Split `Reason: words`; the reason is None when no server of ours wrote the text."""
    reason, sep, message = text.strip().partition(": ")
    if sep and reason.isalnum() and reason[:1].isupper():
        return reason, message
    return None, text.strip()
