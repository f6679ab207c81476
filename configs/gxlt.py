# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""G-XLT: English question answering, carried to questions and contexts in other languages.

    python -m xlkd.main --config=configs/gxlt.py          # the embedded world, minutes on two CPU cores
    python -m xlkd.main --config=configs/gxlt.py:paper    # mBERT, SQuAD and XQuAD, as published

Stage `english` trains on English alone; the table by language shows how far that carries.
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base
from xlkd.configs.finetune import atlas, qa

LANGUAGES = "en,es,ru,ar,hi,zh"


def get_config(variant: str = "") -> ConfigDict:
    return VARIANTS[variant](base())


def embedded(c: ConfigDict) -> ConfigDict:
    c = atlas(c)
    c.stages = ("english",)
    c.data.eval = f"atlas?split=test&languages={LANGUAGES}&size=200"
    return c


def paper(c: ConfigDict) -> ConfigDict:
    """Methods of the authors' scripts: SQuAD v1.1, two epochs, no warm-up, no decay, last checkpoint."""
    c = qa(c)
    c.stages = ("english",)
    c.encoder.path = "bert-base-multilingual-cased"
    c.seed = 42
    c.task.doc_stride_means = "overlap"  # of this stage; the distillation stage of the authors means the step
    c.task.max_query_length = 0
    c.data.train, c.data.eval = "tfds:squad?split=train", "tfds:xquad"
    c.data.batch = 6
    c.optim.lr, c.optim.warmup, c.optim.weight_decay = 3e-5, 0.0, 0.0
    c.budget.epochs = 2
    c.save.every = 2000
    return c


VARIANTS = {"": embedded, "paper": paper}
