# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masked-LM and translation-LM: continued pre-training of any encoder on your text, or a small encoder from scratch.

    python -m xlkd.main --config=configs/pretrain.py:own --config.encoder.path=ENCODER \\
        --config.data.train='text:yo.txt?split=train' --config.data.eval='text:yo.txt?split=heldout'
    python -m xlkd.main --config=configs/pretrain.py:own --config.encoder.path=ENCODER \\
        --config.data.train='text:yo.txt+moses:corpus?languages=en,yo'   # pairs are used for translation-LM
    python -m xlkd.main --config=configs/pretrain.py                     # a new encoder on the atlas, small and short
    python -m xlkd.main --config=configs/pretrain.py:multilingual        # an hour or so each
    python -m xlkd.main --config=configs/pretrain.py:multilingual-tlm
    python -m xlkd.main --config=configs/pretrain.py:english
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base, list_defaults

from xlkd import spec
from xlkd.spec import stage, tasks


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    return VARIANTS[variant](masked(base()))


def masked(c: ConfigDict) -> ConfigDict:
    """Adds what all variants share: the method and its task."""
    c.method.name = "pretrain"
    c.task = ConfigDict(spec.list_defaults(tasks.Masked))
    c.eval.start = True
    c.save.every, c.log.every = 500, 100
    return c


def own(c: ConfigDict) -> ConfigDict:
    """Continues the pre-training of an encoder of your choice on your text, with or without parallel text."""
    c.stages = ("own",)
    c.encoder.path = "FacebookAI/xlm-roberta-base"
    c.task.max_length = 256
    c.data.update(spec.list_defaults(stage.Data, ("exponent", "block")))
    c.data.batch = 32
    c.optim.lr = 5e-5  # higher rates forget more of the languages that are not in the text
    c.optim.b2 = 0.98
    c.budget.epochs = 3
    return c


def synthetic(c: ConfigDict) -> ConfigDict:
    """Adds what the variants share that pre-train a small new encoder on the atlas (synthetic data)."""
    c.task.share = 0.25  # of the words; more than the usual 0.15, since the texts are short

    c.encoder.path = "new"
    c.encoder.new = ConfigDict(list_defaults(stage.NewEncoder))
    # Few texts: with more, names that are frequent in pre-training would be one token each, and names held out four
    c.encoder.new.texts = "atlas?split=train&kind=same&size=5000"
    c.encoder.new.embedding_scale = 0.1  # with 0.02, usual in large encoders, learning starts much later
    c.encoder.new.disk = "float16"
    c.encoder.dropout = 0.0  # no over-fitting: every example has facts of its own

    c.data.eval = "atlas?split=validation&kind=same&size=1000+atlas?split=validation&kind=translation&size=1000"
    c.data.retrieval = "atlas?split=validation&size=500"
    c.data.batch, c.data.buckets = 16, 3
    c.optim.lr, c.optim.warmup, c.optim.schedule = 2e-3, 500, "linear"
    c.optim.b2 = 0.98
    return c


def short(c: ConfigDict) -> ConfigDict:
    """Runs a few steps to try the command: they teach little more than how frequent the words are."""
    c = synthetic(c)
    c.stages = ("all",)
    c.data.train = "atlas?split=train&kind=mixed&facts=3&size=4800"
    c.eval.every = 150
    return c


def multilingual(c: ConfigDict) -> ConfigDict:
    """Pre-trains by masked-LM alone: each example is in one language."""
    return curriculum(c, "atlas?split=train&kind=same&facts=3&size=208000")


def multilingual_tlm(c: ConfigDict) -> ConfigDict:
    """Pre-trains by masked-LM and translation-LM."""
    return curriculum(c, "atlas?split=train&kind=mixed&share=70&facts=3&size=320000")


def curriculum(c: ConfigDict, data: str) -> ConfigDict:
    """Pre-trains on English first, then on all languages.

    To look a fact up in the other text is learned within 1,000 steps in one language; in ten languages at once it takes
    several times as many.
    """
    c = synthetic(c)
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
    """Pre-trains an English encoder, whose architecture and tokenizer differ from the multilingual ones."""
    c = synthetic(c)
    c.stages = ("one",)
    c.encoder.new.model_type, c.encoder.new.vocabulary, c.encoder.new.positions = "bert", 1500, 256
    c.encoder.new.texts = "atlas?split=train&kind=same&languages=en&size=1000"
    c.data.train = "atlas?split=train&kind=same&languages=en&facts=3&size=51200"
    c.data.eval = "atlas?split=validation&kind=same&languages=en&size=1000"
    c.data.retrieval = ""
    c.eval.every = 1600
    return c


VARIANTS = {
    "": short,
    "own": own,
    "multilingual": multilingual,
    "multilingual-tlm": multilingual_tlm,
    "english": english,
}
