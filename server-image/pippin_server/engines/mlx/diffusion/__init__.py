"""Stable Diffusion on MLX: pictures out of noise, a step at a time. Models lie as diffusers lays
them out."""
