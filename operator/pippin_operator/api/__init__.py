"""Typed spec and status of Pippin's two kinds, and the CRDs that are generated from them. Pure."""
