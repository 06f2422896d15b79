"""What Pippin's processes say to each other: key format, config files, names on the wire.

Standard library and pydantic only, no I/O beyond resolving a configured path.
"""

__version__ = "0.1.0"
