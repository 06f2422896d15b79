"""`kubectl pippin`: what a person does with keys, by the kubectl and the login that they have."""
