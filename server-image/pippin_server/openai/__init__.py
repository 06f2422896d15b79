"""The OpenAI API's shapes, in and out. No engine, no HTTP."""
