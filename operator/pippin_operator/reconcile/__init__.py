"""How an object is settled: read, apply what differs, derive the status, write it when it moved."""
