# shellcheck shell=bash
# The test cluster's ingress controller. Sourced by build.sh.

# shellcheck disable=SC2034 # used by build.sh
PROGRAMS=(traefik)
MODULES=("$TOOLS/ingress/traefik")

recipe() {
  local package=github.com/traefik/traefik/v3
  printf '%s\n' ingress/traefik "$package/cmd/traefik" \
    "-s -w -X $package/pkg/version.Version=v3.6.12"
}
