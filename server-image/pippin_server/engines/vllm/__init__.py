"""The vLLM engine: its own OpenAI application in our process, behind our edge."""
