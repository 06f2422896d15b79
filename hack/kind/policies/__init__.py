"""NetworkPolicies on the bare-machine kind cluster, whose network plugin knows nothing of them."""
