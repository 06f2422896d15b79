"""HTTP/1.1 to server Pods and providers: own asyncio client, streaming, little buffered."""
