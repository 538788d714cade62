#!/usr/bin/env bash
# A run on this machine: all its GPUs, or its CPUs.
#
#   jobs/local.sh DATASET ROOT [OPTION ...]     options are those of `oodray run`
set -euo pipefail

if [ "$#" -lt 2 ]; then
    echo "usage: $0 DATASET ROOT [OPTION ...]" >&2
    exit 2
fi
dataset=$1 root=$2
shift 2
out=${OUT:-runs/$dataset}

# Started again until it has ended by itself: a run continues where it stopped. What was wrong from the start
# (exit code 2) and Ctrl-C (130) end it at once.
attempts=${ATTEMPTS:-3}
for attempt in $(seq "$attempts"); do
    code=0
    oodray run --dataset "$dataset" --root "$root" --out "$out" "$@" || code=$?
    if [ "$code" -ne 1 ]; then
        exit "$code"
    fi
    echo "attempt $attempt of $attempts failed" >&2
done
exit 1
