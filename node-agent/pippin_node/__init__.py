"""A small kubelet: makes a machine a Node and runs Pippin's own Pods on it as native processes."""
