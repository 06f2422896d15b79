"""Pictures for chat models on MLX, which mlx_lm does not have: files to pixels, pixels to vectors
that a language model reads in place of tokens."""

#: Of models that see, as their configs call them.
MODEL_TYPES = ("idefics3", "smolvlm")
#: Bytes of vectors that are kept of pictures which nobody shows at the moment.
KEPT = 128 * 2**20
