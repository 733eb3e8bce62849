#!/usr/bin/env bash
# prometheus-from-debian.sh [FOLDER]: Debian's prometheus and promtool, unpacked and not installed. Prints where they are.
#
# For the tests alone (PROMETHEUS_PATH): the package is static, so it runs as it lies there. Needs apt and dpkg-deb.
set -Eeuo pipefail
folder=${1:-build/prometheus}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ ! -x "$folder/usr/bin/promtool" ]; then
  cd "$folder"
  # A machine that has never asked for the lists has none.
  apt-get -q download prometheus >&2 || { apt-get -q update >&2 && apt-get -q download prometheus >&2; }
  dpkg-deb -x prometheus_*.deb .
  rm -f prometheus_*.deb
fi
"$folder/usr/bin/prometheus" --version >/dev/null
echo "$folder/usr/bin"
