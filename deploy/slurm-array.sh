#!/bin/bash
# Depth, instances and anchors of a prepared workspace as a Slurm array job, one GPU a task:
#     sbatch deploy/slurm-array.sh WORKSPACE [OPTION of `vipocc priors`]...
# A task that runs out of time finishes its unit and is put into the queue again.
#SBATCH --job-name=vipocc-priors
#SBATCH --array=0-7
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=02:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
set -euo pipefail

workspace=${1:?usage: sbatch slurm-array.sh WORKSPACE [OPTION]...}
shift
# As many parts as the array has tasks, also when only some are run again (sbatch --array=3,5).
part="$SLURM_ARRAY_TASK_ID/${PARTS:-8}"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

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
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    fi
    return "$code"
}

run vipocc priors depth -C "$workspace" --no-auto --shard "$part" "$@"
run vipocc priors sam -C "$workspace" --no-auto --shard "$part" "$@"
