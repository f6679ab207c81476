# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MBLM on few labels: does the zero-shot-aware term help in languages without labels?

    python -m xlkd.sweep --config=configs/studies/mblm.py --over=seed=1,2,3,4,5 \\
        --workdir=runs/studies/mblm --results=docs/results/mblm
    python -m xlkd.sweep --config=configs/studies/mblm.py:nusax --over=seed=1,2,3,4,5 \\
        --workdir=runs/studies/mblm_nusax --results=docs/results/mblm_nusax

`mblm.md` beside this file was written before the runs. The folders `data` and `models` are described on the page of
results. The teachers are trained once, on all rows of their language; a draw takes other rows for the students.
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base
from xlkd.configs.mblm import mblm


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant; `seed` is the number of the draw."""
    return VARIANTS[variant](base())


def xnli(c: ConfigDict) -> ConfigDict:
    """Trains on 1,500 of 5,000 machine-translated rows of XNLI in three languages."""
    supervised, zero_shot = ("en", "de", "zh"), ("es", "fr", "ru", "ar", "hi", "tr", "vi", "th")
    train, test = "xnli:data/xnli_train?split=train", "xnli:data/xnli?split=dev"
    languages = ",".join((*supervised, *zero_shot))
    c = few_labels(c, supervised, f"{train}&limit=1500", f"{test}&languages={languages}&after=300&limit=900", "xnli")
    c.controls = ("single_kd", "branches", "mblm")
    c.report.compare = ("mblm:branches", "branches:single_kd", "mblm:single_kd")
    c.encoder.path, c.encoder.dtype, c.task.max_length = "models/multilingual-e5-small", "bfloat16", 80
    c.optim.lr, c.budget.epochs = 5e-5, 2
    for tag in supervised:
        teacher = c[f"teacher_{tag}"]
        teacher.encoder.path = "models/all-MiniLM-L6-v2" if tag == "en" else "models/multilingual-e5-small"
        teacher.data = ConfigDict({"train": f"{train}&languages={tag}", "eval": f"{test}&languages={tag}&limit=300"})
        teacher.optim.lr, teacher.budget.epochs = 2e-4 if tag == "en" else 5e-5, 3
    return finish(c)


def nusax(c: ConfigDict) -> ConfigDict:
    """Trains on 250 of 500 rows of NusaX in three languages, with a student of six layers."""
    supervised, train, test = ("en", "id", "jv"), "nusax:data/nusax?split=train", "nusax:data/nusax?split=test"
    c = few_labels(c, supervised, f"{train}&limit=250", f"{test}&after=200", "nusax")
    c.report.compare = ("mblm:branches", "branches:single_kd", "single_kd:single", "mblm:single")
    c.encoder.path, c.task.max_length = "models/e5-6", 128
    c.optim.lr, c.budget.epochs = 1e-4, 6
    for tag in supervised:
        teacher = c[f"teacher_{tag}"]
        teacher.encoder.path = "models/multilingual-e5-small"
        teacher.data = ConfigDict({"train": f"{train}&languages={tag}", "eval": f"{test}&languages={tag}&limit=200"})
        teacher.optim.lr, teacher.budget.epochs = 2e-4, 4
    return finish(c)


def few_labels(c: ConfigDict, languages: tuple[str, ...], train: str, test: str, name: str) -> ConfigDict:
    """Adds teachers, controls, and the sources from which a draw takes its rows."""
    c = mblm(c, languages)
    c.seed = 1
    draw = "&draw=" + c.get_ref("seed").to_str()
    c.data.train = f"{train}&languages={','.join(languages)}" + draw
    c.data.eval = test + draw
    c.data.batch, c.data.buckets, c.encoder.dropout = 16, 3, -1.0
    c.save.every = 100
    for tag in languages:
        c[f"teacher_{tag}"].encoder, c[f"teacher_{tag}"].seed = ConfigDict(), 0
    c.report.primary, c.report.judged_by = ("mblm:branches",), f"{name}/zero_shot_mean/accuracy"
    return c


def finish(c: ConfigDict) -> ConfigDict:
    """Runs the teachers, then the controls."""
    c.stages = (*(name for name in c.stages if name.startswith("teacher_")), *c.controls)
    return c


VARIANTS = {"": xnli, "nusax": nusax}
