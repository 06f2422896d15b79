"""From a ModelDeployment to its children's manifests. Pure and total: same input, same bytes."""
