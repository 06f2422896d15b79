"""A real Kubernetes control plane on one machine: no root, no containers, loopback only.

Used by `make demo` and by the tests. Standard library, cryptography and PyYAML; nothing of
Pippin's own may be imported here, so that the judge does not depend on the judged.
"""
