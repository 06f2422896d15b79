#!/usr/bin/env bash
# Fails when something that is generated is not what would be generated now.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/generate.sh" --check
