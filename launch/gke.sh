#!/usr/bin/env bash
# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Google Kubernetes Engine: a JobSet (gke.yaml), for TPUs of every generation and for GPUs.
#
#   launch/gke.sh --name=mine --image=REGION-docker.pkg.dev/PROJECT/REPO/xlkd:1 --bucket=gs://BUCKET/xlkd --account=xlkd \
#     --tpu=tpu-v6e-slice --topology=4x4 --hosts=4 --chips=4 -- --config=configs/gxlt.py
#   launch/gke.sh --name=mine --image=… --bucket=… --gpu=nvidia-h100-80gb --hosts=2 --chips=8 -- --config=…
#
#   --name=NAME        of the run
#   --image=IMAGE      has the checkout in --code, installed from there (pip install --editable '.[tpu,gcs]' or '.[cuda,gcs]')
#   --code=FOLDER      of the checkout in the image (default /xlkd)
#   --bucket=gs://…    for the results and the cache
#   --account=NAME     Kubernetes service account that may write to the bucket by Workload Identity (default: default)
#   --tpu=KIND --topology=AxB    node labels cloud.google.com/gke-tpu-accelerator and gke-tpu-topology; or
#   --gpu=KIND         node label cloud.google.com/gke-accelerator
#   --hosts=N          pods (default 1); --chips=N: TPU chips or GPUs of each (default 4)
#   --restarts=N       restarts of the JobSet (default 50)
#   --dry_run          print the JobSet and start nothing
#
# Code: in the image. Data: in the image, or hub names. Results: gs://BUCKET/xlkd/NAME/runs/NAME, the run's work directory.
# When a pod is lost all pods start again, and resume from the last save.
# To look at the run, see the lines printed at the end.

# shellcheck disable=SC2034 # the template's words are read by name, below
set -u
name='' image='' code=/xlkd bucket='' account=default tpu='' topology='' gpu='' hosts=1 chips=4 restarts=50
flags="name image code bucket account tpu topology gpu hosts chips restarts" switches=""
# shellcheck source=launch/inputs.sh
. "$(dirname "$0")/inputs.sh"

given name "$name" mine
plain name "$name"
given image "$image" REGION-docker.pkg.dev/PROJECT/REPOSITORY/xlkd:1
given bucket "$bucket" gs://BUCKET/xlkd
bucket bucket "$bucket"
plain account "$account"
whole hosts "$hosts"
whole chips "$chips"
whole restarts "$restarts"
main_has --workdir && refuse "the command names a work directory" "leave --workdir out: it is $bucket/$name/runs/$name"
case ${tpu:+tpu}${gpu:+gpu} in
  tpu)
    [[ $topology =~ ^[0-9]+x[0-9]+(x[0-9]+)?$ ]] || refuse "--topology='$topology' is not a topology" "for example --topology=4x4"
    product=$((${topology//x/*}))
    [ "$product" -eq $((hosts * chips)) ] ||
      refuse "$topology has $product chips, --hosts=$hosts × --chips=$chips are $((hosts * chips))" "let them agree"
    resource=google.com/tpu
    selector="{cloud.google.com/gke-tpu-accelerator: $tpu, cloud.google.com/gke-tpu-topology: $topology}"
    ;;
  gpu)
    resource=nvidia.com/gpu
    selector="{cloud.google.com/gke-accelerator: $gpu}"
    ;;
  *) refuse "neither --tpu nor --gpu, or both" "for example --gpu=nvidia-l4, or --tpu=tpu-v6e-slice --topology=2x2" ;;
esac
needs kubectl "install it, then gcloud container clusters get-credentials CLUSTER"

words=("${main[@]}")
words[0]=python3
words+=("--workdir=$bucket/$name/runs/$name")
# On TPU nodes JAX finds the process number by itself; elsewhere Kubernetes fills in the pod's number.
if [ -n "$gpu" ] && [ "$hosts" -gt 1 ]; then
  # shellcheck disable=SC2016 # for Kubernetes
  words+=("--coordinator=$name-hosts-0-0.$name:8476" "--processes=$hosts" '--process=$(JOB_COMPLETION_INDEX)')
fi
command="[launch/member.sh"
for word in "${words[@]}"; do
  word=${word//\\/\\\\}
  command="$command, \"${word//\"/\\\"}\""
done
command="$command]"

cache=$bucket/$name/cache
yaml=$(cat "$here/gke.yaml")
for name_ in name image code account cache hosts chips restarts resource selector command; do
  yaml=${yaml//"{$name_}"/"${!name_}"} # quoted, since an unquoted & stands for the match in bash 5.2
done
if [ -n "$dry_run" ]; then
  echo "kubectl apply -f - <<'JOBSET'"
  echo "$yaml"
  echo "JOBSET"
else
  kubectl get crd jobsets.jobset.x-k8s.io >/dev/null 2>&1 ||
    refuse "JobSet is not installed in this cluster, or the cluster does not answer" \
      "kubectl apply --server-side -f https://github.com/kubernetes-sigs/jobset/releases/download/VERSION/manifests.yaml"
  kubectl apply -f - <<<"$yaml" || exit 1
fi
echo "# look at it: kubectl get jobset $name; kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
echo "# end it:     kubectl delete jobset $name"
