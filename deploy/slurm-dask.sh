#!/bin/bash
# Depth, instances and anchors of a prepared workspace on a dask cluster inside one Slurm job, a worker a GPU:
#     sbatch deploy/slurm-dask.sh WORKSPACE [OPTION of `vipocc priors`]...
# A job that runs out of time finishes the units in hand and is put into the queue again.
#SBATCH --job-name=vipocc-dask
#SBATCH --ntasks=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=8G
#SBATCH --time=02:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

workspace=${1:?usage: sbatch slurm-dask.sh WORKSPACE [OPTION]...}
shift
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
file="$workspace/dask-$SLURM_JOB_ID.json"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$file"' EXIT

dask scheduler --scheduler-file "$file" --port 0 --no-dashboard &
until [ -s "$file" ]; do sleep 1; done
# Four units in hand on each: one is read, one on the GPU, one written, one in line. Slurm limits the memory.
srun --ntasks="$SLURM_NTASKS" --kill-on-bad-exit=0 dask worker --scheduler-file "$file" --nthreads 4 \
    --resources GPU=1 --memory-limit 0 --no-dashboard --local-directory "${TMPDIR:-/tmp}" --death-timeout 300 &
address=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$file")

# Run a command, and pass it the signal that Slurm sends this shell before the time is over.
run() {
    local code=0 stopped=
    "$@" &
    local child=$!
    trap 'stopped=1; kill -TERM "$child" || true' TERM
    wait "$child" || code=$?
    if [ -n "$stopped" ]; then
        code=0
        wait "$child" || code=$?
    fi
    trap - TERM
    if [ "$code" -eq 143 ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$code"
}

run vipocc priors depth -C "$workspace" --no-auto --scheduler "$address" "$@"
run vipocc priors sam -C "$workspace" --no-auto --scheduler "$address" "$@"
