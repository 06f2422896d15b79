"""Pictures for chat models on MLX, which mlx_lm does not have: files to pixels, pixels to vectors
that a language model reads in place of tokens."""
