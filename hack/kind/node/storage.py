"""Prints the storage manifest that kind's source holds as Go constants.

Usage: storage.py const_storage.go
"""

import re
import sys
from pathlib import Path

source = Path(sys.argv[1]).read_text()
constants = dict(re.findall(r'const (\w+) = "([^"]+)"', source))
text = source[source.index("const defaultStorageManifest") :]
text = text[text.index("`") + 1 : text.rindex("`")]
print(re.sub(r"` \+ (\w+) \+ `", lambda match: constants[match.group(1)], text))
