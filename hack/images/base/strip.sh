#!/bin/sh
# Runs inside a Debian root that has Python: takes out what only installs, compiles or administers.
# What stays: Python, the C library and what it needs, certificates, time zones, a shell. The list
# of packages stays too (var/lib/dpkg/status), for those who scan images.
set -eu

# The flavour "compiler" keeps one.
COMPILER="gcc g++ cpp"
if [ "${FLAVOUR:-}" = compiler ]; then COMPILER=; fi

# Programs that install or administer, and the libraries that nothing else uses.
for package in apt libapt-pkg6.0 gpgv debian-archive-keyring dpkg perl-base debconf adduser passwd \
  login e2fsprogs libext2fs2 logsave libss2 mount util-linux util-linux-extra bsdutils \
  init-system-helpers sysvinit-utils libpam-modules libpam-modules-bin libpam-runtime $COMPILER \
  make libgnutls30 libp11-kit0 libidn2-0 libunistring2 libhogweed6 libnettle8 libsemanage2 libsepol2 \
  libfdisk1 libmount1 libseccomp2 python3-distutils python3-lib2to3 \
  python3-pip-whl python3-setuptools-whl; do
  for list in "/var/lib/dpkg/info/$package.list" "/var/lib/dpkg/info/$package":*.list; do
    [ -f "$list" ] || continue
    while read -r path; do
      case $path in */lscpu) continue ;; esac # vLLM asks it for the cores
      # Links to folders stay: /bin and /lib are such links.
      if [ ! -d "$path" ]; then rm -f "$path"; fi
    done <"$list"
  done
done

rm -rf /var/lib/dpkg/info /var/lib/apt /var/cache/* /var/log/* /usr/share/doc /usr/share/man \
  /usr/share/locale /usr/share/info /usr/share/lintian /usr/share/bug /usr/share/bash-completion \
  /usr/share/perl* /usr/share/debconf /usr/share/pixmaps /usr/lib/apt /usr/lib/dpkg /etc/apt \
  /usr/lib/*/gconv /usr/lib/*/perl-base /usr/local/bin/pip* /usr/local/bin/idle* \
  /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/site-packages/setuptools* \
  /usr/lib/python3*/ensurepip /usr/local/lib/python3*/ensurepip /usr/lib/python3*/lib2to3 \
  /usr/lib/python3*/distutils /usr/local/lib/python3*/lib2to3 \
  /usr/lib/python3*/test /usr/local/lib/python3*/test /usr/lib/python3*/pydoc_data \
  /usr/local/lib/python3*/pydoc_data /usr/share/zoneinfo/right /root/.cache /tmp/*

# A number, so that a Pod's runAsNonRoot can be checked; a home that exists and belongs to nobody.
echo 'pippin:x:65532:65532:pippin:/nonexistent:/usr/sbin/nologin' >>/etc/passwd
echo 'pippin:x:65532:' >>/etc/group
find / -xdev -perm /6000 -type f -exec chmod a-s {} +
