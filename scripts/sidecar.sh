# shellcheck shell=sh
# Read by the scripts beside it: `sidecar COMMAND` is `llm-sidecar`, wherever it is: what LLM_SIDECAR says,
# this folder's .venv, the PATH, or a container of $service (a compose file and a service of it; empty where none would do).
sidecar() {
  : "${service?}"
  root=$(cd "$(dirname "$0")/.." && pwd)
  if [ -n "$LLM_SIDECAR" ]; then
    $LLM_SIDECAR "$@"
  elif [ -x "$root/.venv/bin/llm-sidecar" ]; then
    "$root/.venv/bin/llm-sidecar" "$@"
  elif command -v llm-sidecar >/dev/null; then
    llm-sidecar "$@"
  elif [ "$service" ] && command -v docker >/dev/null; then
    docker compose -f "$root/${service% *}" run --rm --no-deps "${service#* }" "$@"
  else
    echo "$0: llm-sidecar is not here; run \`make install\` in $root${service:+, or install Docker}" >&2
    exit 69
  fi
}
