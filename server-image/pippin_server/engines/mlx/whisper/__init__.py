"""Whisper on MLX, which mlx_lm does not have: sound in windows of 30 seconds, words out of them."""
