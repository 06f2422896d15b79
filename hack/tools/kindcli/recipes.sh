# shellcheck shell=bash
# kind alone, of the module that the nodes' programs come from too. Sourced by build.sh.

# shellcheck disable=SC2034 # used by build.sh
PROGRAMS=(kind)
MODULES=("$TOOLS/kind/kind")

recipe() { printf '%s\n' kind/kind sigs.k8s.io/kind '-s -w'; }
