#!/usr/bin/env bash
# A run on a Ray cluster that is there already.
#
#   RAY_API_SERVER_ADDRESS=http://HEAD:8265 jobs/submit.sh DATASET ROOT OUT [OPTION ...]
#
# ROOT and OUT are places that every node sees under the same name: a network drive, or s3://bucket/folder.
set -euo pipefail

if [ "$#" -lt 3 ]; then
    echo "usage: $0 DATASET ROOT OUT [OPTION ...]" >&2
    exit 2
fi
: "${RAY_API_SERVER_ADDRESS:?set it to the dashboard of the head node, http://HEAD:8265}"
dataset=$1 root=$2 out=$3
shift 3
# The run starts on the head, in a folder that is not this one.
for place in "$root" "$out"; do
    case $place in
        /* | *://*) ;;
        *)
            echo "$place must begin with /, or be a place such as s3://bucket/folder: the cluster knows no other" >&2
            exit 2
            ;;
    esac
done

# The name makes a second submission of the same run visible; the results folder refuses it while the first one lives.
name="oodray-$dataset-$(date +%Y%m%d-%H%M%S)"
# No working folder goes along: oodray is installed on the nodes. Ray sets RAY_ADDRESS for the driver that it starts.
exec ray job submit --address "$RAY_API_SERVER_ADDRESS" --submission-id "$name" -- \
    oodray run --dataset "$dataset" --root "$root" --out "$out" "$@"
