"""HTTP/1.1 to the server Pods: own asyncio client, streaming, nothing buffered for long."""
