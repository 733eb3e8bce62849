#!/bin/sh
cd "$(dirname "$0")/.." || exit 78
exec "${PYTHON:-python3}" -m watchdog "$@"
