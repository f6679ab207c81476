# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning: question answering, or classification of texts and pairs.

    python -m xlkd.main --config=configs/finetune.py             # English questions in, F1 by language out
    python -m xlkd.main --config=configs/finetune.py:classify    # English statement pairs in, accuracy by language out
    python -m xlkd.main --config=configs/finetune.py --config.encoder.path=DIR \\
        --config.data.train=squad:train.json --config.data.eval=xquad:DIR
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base

from xlkd import spec
from xlkd.spec import tasks


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    return VARIANTS[variant](base())


def qa(c: ConfigDict) -> ConfigDict:
    """Adds one stage that fine-tunes for question answering; the data is still to be named."""
    c.stages = ("finetune",)
    c.method.name = "finetune"
    c.task = ConfigDict(spec.list_defaults(tasks.QuestionAnswering))
    return c


def atlas(c: ConfigDict) -> ConfigDict:
    """Fine-tunes a packaged encoder on English questions of the atlas (synthetic data)."""
    c = qa(c)
    c.encoder.path = "package:multilingual-tlm"
    c.task.max_length = 160
    c.data.train = "atlas?split=train&languages=en&size=12800"
    c.data.eval = "atlas?split=validation&languages=en,de,es,ru,ar,hi,zh&size=200"
    c.data.batch, c.data.buckets = 16, 2
    c.optim.lr = 5e-4
    c.encoder.dropout = 0.0
    return c


def squad(c: ConfigDict) -> ConfigDict:
    """Fine-tunes mBERT on SQuAD from TFDS, and evaluates zero-shot on XQuAD."""
    c = qa(c)
    c.encoder.path = "bert-base-multilingual-cased"
    c.data.train, c.data.eval = "tfds:squad?split=train", "tfds:xquad"
    c.data.batch = 24
    c.optim.lr, c.optim.warmup, c.budget.epochs = 3e-5, 0.0, 2
    return c


def classify(c: ConfigDict) -> ConfigDict:
    """Fine-tunes a packaged encoder on English statement pairs of the atlas (synthetic data)."""
    c.stages = ("finetune",)
    c.method.name = "finetune"
    c.task = ConfigDict(spec.list_defaults(tasks.Classify))
    c.encoder.path = "package:multilingual-tlm"
    c.encoder.dropout = 0.0
    c.data.train = "atlas?split=train&languages=en&size=12800&facts=1"
    c.data.eval = "atlas?split=validation&languages=en,de,es,ru,ar,hi,zh&size=300&facts=1"
    c.data.batch, c.data.buckets = 16, 2
    c.optim.lr = 5e-4
    return c


VARIANTS = {"": atlas, "squad": squad, "classify": classify}
