# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MMKD, judged by a task: does alignment on four levels help more than that on tokens alone?

    python -m xlkd.sweep --config=configs/studies/mmkd.py --over=seed=1,2,3,4,5 \\
        --workdir=runs/studies/mmkd --results=docs/results/mmkd

`mmkd.md` beside this file was written before the runs. The folders `data` and `models` are described on the page of
results. The student has no masked-LM head: stage `head` trains one on the encoder as it is, once for all draws.
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base
from xlkd.configs.mmkd import controls, mmkd

from xlkd import spec
from xlkd.spec import tasks

LANGUAGES = "ar,de,el,es,fr,hi,ru,sw,th,tr,ur,vi,zh"
PAIRS = f"ntrex:data/ntrex?languages={LANGUAGES}"


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the study; `seed` is the number of the draw."""
    c = controls(mmkd(base()), ("before", "token", "full"))
    c.seed = 1
    draw = "&draw=" + c.get_ref("seed").to_str()
    c.encoder.path, c.encoder.dropout, c.teacher.path = "models/e5-6", -1.0, "models/all-MiniLM-L6-v2"
    c.encoder.dtype = "bfloat16"
    c.method.student_pooling = c.method.teacher_pooling = "mean"
    c.data.train = f"{PAIRS}&documents=train&limit=1000" + draw
    c.data.retrieval = f"{PAIRS}&documents=heldout"
    c.data.alignment = "align:data/word_align/enfr?languages=en,fr+align:data/word_align/jaen?languages=ja,en"
    c.data.batch, c.data.buckets, c.task.max_length = 32, 3, 96
    c.optim.lr, c.budget.epochs, c.budget.steps = 5e-5, 0, 300
    c.save.every = 100

    c.head = ConfigDict({"method": {"name": "pretrain", "trains": "head"}, "start": "encoder", "seed": 0})
    c.head.task = ConfigDict(spec.list_defaults(tasks.Masked))
    c.head.data = ConfigDict({"train": f"{PAIRS}&documents=train", "retrieval": "", "buckets": 3})
    c.head.optim, c.head.budget = ConfigDict({"lr": 1e-3}), ConfigDict({"epochs": 0, "steps": 600})
    c.stages = ("head", *c.stages)
    for name in c.controls:
        c[name].start = "head"
        c[name].data = ConfigDict({"on_bad_row": "skip"})  # six of KFTT's links point outside their sentences
        tuning = c[f"finetune_{name}"]
        tuning.data.train = "xnli:data/xnli_train?split=train&languages=en"
        tuning.data.eval = f"xnli:data/xnli?split=dev&languages=en,{LANGUAGES}&after=300&limit=900" + draw
        tuning.data.batch, tuning.data.buckets, tuning.task.max_length = 16, 3, 80
        tuning.optim.lr, tuning.budget.epochs = 3e-5, 5
    c.report.compare = (
        "finetune_full:finetune_token",
        "finetune_full:finetune_before",
        "finetune_token:finetune_before",
    )
    c.report.primary, c.report.judged_by = ("finetune_full:finetune_token",), "xnli/zero_shot_mean/accuracy"
    return c
