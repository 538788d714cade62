#!/usr/bin/env bash
# Several datasets: a run with every K, the best settings, and all runs side by side.
#
#   jobs/sweep.sh ROOTS OUTS DATASET [DATASET ...]     ROOTS/DATASET holds the images, OUTS/DATASET gets the results
#
# MODEL names the network, K_RANGE the values of K. Started again it continues where it stopped.
set -euo pipefail

if [ "$#" -lt 3 ]; then
    echo "usage: $0 ROOTS OUTS DATASET [DATASET ...]" >&2
    exit 2
fi
roots=$1 outs=$2
shift 2
options=(--sweep-k "${K_RANGE:-3:10}")
if [ -n "${MODEL:-}" ]; then
    options+=(--model "$MODEL")
fi

done_outs=()
for dataset in "$@"; do
    oodray run --dataset "$dataset" --root "$roots/$dataset" --out "$outs/$dataset" "${options[@]}"
    oodray sweep "$outs/$dataset"
    done_outs+=("$outs/$dataset")
done
if [ "${#done_outs[@]}" -gt 1 ]; then
    oodray compare "${done_outs[@]}"
fi
