"""Teaches kind's entrypoint about machines that mount only some cgroup v1 controllers.

systemd in the node would mount the others, which act on the whole kernel; so the node is shown
only those that the machine has mounted.

Usage: entrypoint.py path/to/entrypoint
"""

import sys
from pathlib import Path

HIDE = """
hide_unmounted_controllers() {
  [[ -f /sys/fs/cgroup/cgroup.controllers ]] && return 0
  awk 'NR == 1 || $2 != 0' /proc/cgroups >/kind/mounted-cgroups
  mount --bind /kind/mounted-cgroups /proc/cgroups
}
"""
CALL = "\nfix_cgroup\n"

path = Path(sys.argv[1])
text = path.read_text()
if text.count(CALL) != 1:
    sys.exit(f"{path}: kind's entrypoint no longer calls fix_cgroup once, on a line of its own")
path.write_text(text.replace(CALL, f"{HIDE}{CALL}hide_unmounted_controllers\n"))
