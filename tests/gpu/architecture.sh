#!/usr/bin/env bash
# Prints what CUDA_ARCH of the Makefile must be for the first GPU of this machine, such as sm_90a.
set -uo pipefail

# Compute capability 9.0 has instructions that only sm_90a gives.
from_capability() { # MAJOR.MINOR
  case $1 in
    9.0) echo sm_90a ;;
    [0-9]*.[0-9]*) echo "sm_${1/./}" ;;
    *) return 1 ;;
  esac
}

capability="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)"
if ! from_capability "$capability"; then
  echo "nvidia-smi finds no GPU; give CUDA_ARCH, such as CUDA_ARCH=sm_90a" >&2
  exit 1
fi
