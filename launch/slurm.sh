#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# A Slurm cluster: one process for each GPU, or for each node without GPUs; the job requeues itself until the run is done.
#
#   launch/slurm.sh --nodes=2 --gpus_per_node=8 --time=24:00:00 -- --config=configs/gxlt.py --workdir=/shared/runs/mine
#
#   --nodes=N            (default 1)
#   --gpus_per_node=N    0 for CPUs only (default 1)
#   --cpus_per_task=N    (default 8)
#   --time=HH:MM:SS      limit of one start; two minutes before it the run saves and is queued again
#   --partition=NAME --account=NAME --name=NAME
#   --restarts=N         starts after which the job is not queued again (default 50)
#   --python=FILE        Python of an environment on the shared file system (default: that of this shell)
#   --dry_run            print the job and submit nothing
#
# Code: this checkout, on a file system that all nodes see. Data, results and the cache (XLKD_CACHE): there too.
# Look at it: squeue --me; tail -f NAME-JOB.out; scancel --signal=TERM JOB saves and queues again; scancel JOB ends it.

set -u
nodes=1 gpus_per_node=1 cpus_per_task=8 time=24:00:00 partition='' account='' name=xlkd restarts=50 python=''
flags="nodes gpus_per_node cpus_per_task time partition account name restarts python" switches=""
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"

whole nodes "$nodes"
whole cpus_per_task "$cpus_per_task"
whole restarts "$restarts"
[ "$gpus_per_node" = 0 ] || whole gpus_per_node "$gpus_per_node"
[[ $time =~ ^([0-9]+-)?[0-9]{1,2}:[0-9]{2}:[0-9]{2}$ ]] || refuse "--time=$time is not a time" "for example --time=24:00:00"
plain name "$name"
main_has --workdir || refuse "the command names no work directory" "add --workdir=DIR on a file system that all nodes see"
needs sbatch "run this on a login node of the cluster"
if [ -n "$python" ]; then
  [ -n "$dry_run" ] || [ -x "$python" ] || refuse "--python=$python is not a program" "name bin/python of an environment"
  main[0]=$python
fi

tasks=$gpus_per_node
[ "$tasks" != 0 ] || tasks=1
job="#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$tasks
#SBATCH --cpus-per-task=$cpus_per_task
#SBATCH --time=$time
#SBATCH --output=$name-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120"
[ "$gpus_per_node" = 0 ] || job="$job
#SBATCH --gpus-per-node=$gpus_per_node"
[ -z "$partition" ] || job="$job
#SBATCH --partition=$partition"
[ -z "$account" ] || job="$job
#SBATCH --account=$account"
job="$job
cd $(quoted "$(cd "$here/.." && pwd)") || exit 2
srun --kill-on-bad-exit=0 launch/member.sh $(quoted "${main[@]}")
code=\$?
# 75: saved, to be started again; above 128: a process was killed. After bad input and faults the job is not queued again.
[ \$code -eq 75 ] || [ \$code -gt 128 ] || exit \$code
[ \"\${SLURM_RESTART_COUNT:-0}\" -lt $restarts ] || { echo \"stopped: started again $restarts times\" >&2; exit \$code; }
for attempt in 1 2 3 4 5; do
  scontrol requeue \"\$SLURM_JOB_ID\" && sleep 60 && exit \$code # the requeue ends this script
  sleep 10
done
echo \"stopped: the job cannot be queued again; submit it again\" >&2
exit \$code"

if [ -n "$dry_run" ]; then
  echo "sbatch <<'JOB'"
  echo "$job"
  echo "JOB"
else
  sbatch <<<"$job"
fi
