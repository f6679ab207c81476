# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pre-trains a small encoder on the embedded world: masked-LM, and translation-LM where rows are in two languages.

python -m xlkd.main --config=configs/pretrain.py                    # small and short
python -m xlkd.main --config=configs/pretrain.py:multilingual       # an hour or so each
python -m xlkd.main --config=configs/pretrain.py:multilingual-tlm
python -m xlkd.main --config=configs/pretrain.py:english
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base

from xlkd import spec
from xlkd.spec import stage, tasks


def get_config(variant: str = "") -> ConfigDict:
    c = base()
    c.method.name = "pretrain"
    c.task = ConfigDict(spec.list_defaults(tasks.Masked))
    c.task.share = 0.25  # of the words; more than the usual 0.15, since the texts are short

    c.encoder.path = "new"
    c.encoder.new = ConfigDict(spec.list_defaults(stage.NewEncoder))
    # Few texts: otherwise names that pre-training sees often would become one token, and those held out four
    c.encoder.new.texts = "atlas?split=train&kind=same&size=5000"
    c.encoder.new.embedding_scale = 0.1  # 0.02, as usual in large encoders, learns much later here
    c.encoder.new.disk = "float16"
    c.encoder.dropout = 0.0  # far from over-fitting: the world is dealt anew for every row

    c.data.eval = "atlas?split=validation&kind=same&size=1000+atlas?split=validation&kind=translation&size=1000"
    c.data.retrieval = "atlas?split=validation&size=500"
    c.data.batch, c.data.buckets = 16, 3
    c.optim.lr, c.optim.warmup, c.optim.schedule = 2e-3, 500, "linear"
    c.optim.b2 = 0.98
    c.eval.start, c.eval.batch = True, 64
    c.save.every, c.log.every = 500, 100
    return VARIANTS[variant](c)


def short(c: ConfigDict) -> ConfigDict:
    """To see it run: nothing is learned in so few steps but how often words are."""
    c.stages = ("all",)
    c.data.train = "atlas?split=train&kind=mixed&facts=3&size=4800"
    c.eval.every = 150
    return c


def multilingual(c: ConfigDict) -> ConfigDict:
    """Masked-LM alone: each row in one language."""
    return curriculum(c, "atlas?split=train&kind=same&facts=3&size=208000")


def multilingual_tlm(c: ConfigDict) -> ConfigDict:
    return curriculum(c, "atlas?split=train&kind=mixed&share=70&facts=3&size=320000")


def curriculum(c: ConfigDict, data: str) -> ConfigDict:
    """English first: to look a fact up in the other text is learned in one language 1,000 steps long, in ten at once
    only after several times as many."""
    c.stages = ("one", "all")
    c.one = ConfigDict()
    c.one.data = ConfigDict()
    c.one.data.train = "atlas?split=train&kind=same&languages=en&facts=3&size=24000"
    c.one.data.eval = "atlas?split=validation&kind=same&languages=en&size=500"
    c.one.data.retrieval = ""
    c.one.optim = ConfigDict()
    c.one.optim.schedule = "constant"
    c.all = ConfigDict()
    c.all.start = "one"
    c.all.data = ConfigDict()
    c.all.data.train = data
    c.all.eval = ConfigDict()
    c.all.eval.every = 4000
    return c


def english(c: ConfigDict) -> ConfigDict:
    """Another architecture and another kind of tokenizer than the multilingual ones."""
    c.stages = ("one",)
    c.encoder.new.model_type, c.encoder.new.vocabulary, c.encoder.new.positions = "bert", 1500, 256
    c.encoder.new.texts = "atlas?split=train&kind=same&languages=en&size=1000"
    c.data.train = "atlas?split=train&kind=same&languages=en&facts=3&size=51200"
    c.data.eval = "atlas?split=validation&kind=same&languages=en&size=1000"
    c.data.retrieval = ""
    c.eval.every = 1600
    return c


VARIANTS = {"": short, "multilingual": multilingual, "multilingual-tlm": multilingual_tlm, "english": english}
