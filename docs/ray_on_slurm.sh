#!/bin/bash
#SBATCH --job-name=kagscope
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
# A study on Ray, inside one SLURM job:  sbatch ray_on_slurm.sh study.toml /shared/out
# Give the same command again when the time is up: the study goes on.
set -euo pipefail
study=$1 out=$2
cpus=${SLURM_CPUS_PER_TASK:-1}
nodes=${SLURM_JOB_NUM_NODES:-1}
port=$((20000 + ${SLURM_JOB_ID:-0} % 20000)) # jobs that share a node need ports of their own
# Others on these nodes must not reach this Ray: a secret of this job, which srun hands on.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/ray-${SLURM_JOB_ID:-0}}

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# srun ends when its Ray ends; "--block" keeps it there. Ray on the other nodes waits for the head by itself.
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$cpus" --include-dashboard=false --block &
if [ "$nodes" -gt 1 ]; then
  srun --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$head" --overlap \
    bash -c "until ray status --address='$address:$port' >/dev/null 2>&1; do sleep 2; done
             exec ray start --address='$address:$port' --num-cpus='$cpus' --block" &
fi
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

for _ in $(seq 150); do # five minutes at most for the head to answer
  ray status --address="$address:$port" >/dev/null 2>&1 && break
  sleep 2
done
# Nodes that come later are used as well.
kagscope study run "$study" --out "$out" --executor ray --address "$address:$port" &
driver=$!
trap 'kill -INT "$driver" 2>/dev/null || true' TERM # two minutes before the end: stop, keep what is finished
wait "$driver" || { status=$?; wait "$driver" 2>/dev/null || true; exit "$status"; }
