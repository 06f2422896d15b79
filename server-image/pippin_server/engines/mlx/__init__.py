"""The MLX engine: Apple GPUs, and plain CPUs on Linux. The only importers of mlx and mlx_lm."""
