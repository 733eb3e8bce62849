#!/bin/sh
# Fetch a GGUF model by its short name: the profile NAME-QUANTISATION of config/llm_profiles.yaml.
usage="usage: $0 stheno|lumimaid [Q4_K_M|Q5_K_M|Q6_K]"

case "$1" in
  -h | --help) echo "$usage"; exit 0 ;;
  stheno | lumimaid) ;;
  *) echo "$usage" >&2; exit 64 ;;
esac
quantisation=$(printf '%s' "${2:-Q4_K_M}" | tr '[:upper:]' '[:lower:]')
case "$quantisation:$#" in
  q4_k_m:[12] | q5_k_m:2 | q6_k:2) ;;
  *) echo "$usage" >&2; exit 64 ;;
esac

service="compose.yaml gpu-server-1"
. "$(dirname "$0")/sidecar.sh"
sidecar download "$1-$quantisation"
