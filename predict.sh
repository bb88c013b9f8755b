#!/bin/sh
# The challenge's contract: every npz of /workspace/inputs to /workspace/outputs, under its own name, key `segs`.
# Other folders may be named: predict.sh INPUTS OUTPUTS MODEL. All cores that the container has are used.
set -eu
exec repmedsam segment -i "${1:-/workspace/inputs}" -o "${2:-/workspace/outputs}" \
    --candidate "${3:-/workspace/model}" --threads "$(nproc)" --overwrite
