#!/usr/bin/env bash
# Starts Ray on the nodes that Slurm allocates, and runs a suite there; what it is given is passed to
# `facebench run`. Submitted again, it resumes: finished runs are up to date, others continue.
#
#   sbatch --nodes 2 --gpus-per-node 4 deploy/slurm.sh --suite study --seeds 0,1,2
#
#SBATCH --job-name=facebench
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --output=facebench-%j.log
# TERM comes two minutes before the end, so that runs in progress are marked and resume.
#SBATCH --signal=B:TERM@120
set -euo pipefail

# The environment that has facebench[cluster], the same on all nodes; left alone where it is active.
if [[ -n ${FACEBENCH_VENV:-} ]]; then
    # shellcheck disable=SC1091
    source "$FACEBENCH_VENV/bin/activate"
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --all-ip-addresses | awk '{print $1}')
# A port of its own for each job, since two jobs may share a node.
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS=$ip:$port RAY_USAGE_STATS_ENABLED=0
# Whoever reaches a Ray cluster runs code on it: a token that only this job knows.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

# TERM goes to the driver first, which marks the runs in progress; then Ray ends.
driver='' ray=()
trap 'kill "${ray[@]}" 2>/dev/null; wait' EXIT
trap '[[ $driver ]] && { kill "$driver"; wait "$driver" || true; }; exit 143' TERM

# --block: the step lives as long as Ray does, and Slurm ends Ray with it.
srun --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false \
    "${resources[@]}" --block &
ray+=($!)
if ((${#nodes[@]} > 1)); then
    srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --exclude="$head" \
        ray start --address="$RAY_ADDRESS" "${resources[@]}" --block &
    ray+=($!)
fi

# The driver checks what the nodes have before its first run: all of them must be there.
python - "${#nodes[@]}" <<'PYTHON'
import sys
import time

import ray

wanted, deadline = int(sys.argv[1]), time.monotonic() + 180
while True:
    try:
        ray.init("auto", logging_level="ERROR", log_to_driver=False)
        alive = sum(node["Alive"] for node in ray.nodes())
        ray.shutdown()
    except ConnectionError:
        alive = 0
    if alive >= wanted:
        break
    if time.monotonic() > deadline:
        sys.exit(f"{alive} of {wanted} nodes joined Ray in three minutes")
    time.sleep(2)
PYTHON

facebench run "$@" --on auto &
driver=$!
wait "$driver"
