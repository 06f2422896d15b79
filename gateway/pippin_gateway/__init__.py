"""The one OpenAI endpoint: key check, limits, routing to server Pods, streaming back."""
