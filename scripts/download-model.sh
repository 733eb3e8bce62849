#!/bin/sh
# Fetch the vision model of the profile qwen3-vl-30b, and its image encoder.
if [ $# -gt 0 ]; then
  echo "usage: $0 (no arguments; any other model: llm-sidecar download PROFILE)" >&2
  exit 64
fi

service="docker/compose.llama-cpp.yaml llama-cpp"
. "$(dirname "$0")/sidecar.sh"
sidecar download qwen3-vl-30b
