"""The ASGI edge that gateway and server share: ids, logs, caps, keys, limits, errors, SSE, metrics.

Plain ASGI classes of one concern each, put together by the programs:
`RequestId(AccessLog(ErrorEnvelope(BodyLimit(Authenticate(Limit(app))))))`. Knows no Kubernetes.
"""
