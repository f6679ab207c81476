# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MMKD: a multilingual student is aligned with an English teacher on four levels, then fine-tuned on English alone.

    python -m xlkd.main --config=configs/mmkd.py            # the atlas (synthetic data): no level, token only, all
    python -m xlkd.main --config=configs/mmkd.py:ablation   # and all levels but one
    python -m xlkd.main --config=configs/mmkd.py:paper      # mBERT and BERT, with every published value
    python -m xlkd.main --config=configs/mmkd.py:own '--config.data.train=moses:corpus?languages=en,de' \\
        --config.encoder.path=STUDENT --config.teacher.path=TEACHER
    python -m xlkd.main --config=configs/mmkd.py:own_head …  # the same for a student without a masked-LM head
    python -m xlkd.main --config=configs/mmkd.py:vectors '--config.data.train=moses:corpus?languages=en,de' \\
        --config.encoder.path=STUDENT --config.teacher.vectors=FILE   # the sentence vectors of any model

Each control is a stage that aligns, followed by the stage `finetune_NAME`, which is trained on English labels and
evaluated by language.
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base, list_defaults
from xlkd.configs.finetune import classify

from xlkd import spec
from xlkd.spec import mmkd as method
from xlkd.spec import stage, tasks

LEVELS = spec.list_defaults(method.Method, ("token", "word", "sentence", "structure"))
ABLATION = {  # by control the weights that differ from `LEVELS`
    "before": {},
    "token": {"word": 0.0, "sentence": 0.0, "structure": 0.0},
    "no_token": {"token": 0.0},
    "no_word": {"word": 0.0},
    "no_sentence": {"sentence": 0.0},
    "no_structure": {"structure": 0.0},
    "full": {},
}
LANGUAGES = "en,de,es,ru,ar,hi,zh"


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    return VARIANTS[variant](base())


def mmkd(c: ConfigDict) -> ConfigDict:
    """Adds what all variants share; the defaults avoid the slips of the authors' code."""
    c.task = ConfigDict(spec.list_defaults(tasks.Views))
    c.data.update(list_defaults(stage.Data, ("identities", "cap", "take", "block", "alignment")))
    c.data.identities, c.data.cap = True, 2_000_000
    c.method.update(spec.list_defaults(method.Method))
    c.optim.schedule, c.optim.warmup = "cosine", 2 / 15  # a share of the steps: 2 of 15 epochs
    c.optim.clip = 0.0
    return c


def controls(c: ConfigDict, names: tuple[str, ...]) -> ConfigDict:
    """Adds for each name a stage that aligns with its weights, and a stage that fine-tunes the result."""
    c.controls = names
    c.stages = tuple(stage for name in names for stage in (name, f"finetune_{name}"))
    for name in names:
        c[name] = ConfigDict({"method": {**LEVELS, **ABLATION[name]}})
        c[f"finetune_{name}"] = make_finetuning(name)
    c.before.budget = ConfigDict({"epochs": 0, "steps": 0})
    c.report.compare = tuple(f"finetune_full:finetune_{name}" for name in names if name != "full")
    return c


def make_finetuning(name: str) -> ConfigDict:
    """Returns the stage of `configs/finetune.py:classify`, started from an earlier stage."""
    config, shared = classify(base()), ("train", "eval", "dev", "retrieval", "batch", "buckets", "pad_to")
    c = ConfigDict({block: config[block] for block in ("task", "optim", "budget", "eval")})
    c.method, c.start = ConfigDict({"name": config.method.name}), name
    c.data = ConfigDict({key: config.data[key] for key in shared})
    return c


def synthetic(c: ConfigDict, names: tuple[str, ...] = ("before", "token", "full")) -> ConfigDict:
    """Aligns packaged encoders on parallel text of the atlas (synthetic data), and fine-tunes the results."""
    c = controls(mmkd(c), names)
    c.encoder.path, c.teacher.path = "package:multilingual", "package:english"
    c.encoder.dropout = 0.0
    c.data.train = f"atlas?split=train&languages={LANGUAGES}&size=350&seed=5"
    c.data.retrieval = f"atlas?split=validation&languages={LANGUAGES}&size=300"
    c.data.alignment = f"atlas?split=validation&languages={LANGUAGES}&size=60&seed=1"
    c.data.batch, c.data.buckets = 32, 2
    c.optim.lr = 1e-3
    c.method.student_pooling = c.method.teacher_pooling = "mean"
    c.budget.epochs = 2
    c.eval.start = True
    for name in names:
        stage = c[f"finetune_{name}"]
        stage.data.train = "atlas?split=train&languages=en&size=6400&facts=1"
        stage.data.eval = f"atlas?split=test&languages={LANGUAGES}&size=200&facts=1"
    return c


def ablation(c: ConfigDict) -> ConfigDict:
    """Leaves each level out in turn."""
    return synthetic(c, tuple(ABLATION))


def own(c: ConfigDict) -> ConfigDict:
    """Aligns a student of your choice with your teacher on your parallel text, without fine-tuning."""
    c = mmkd(c)
    c.stages = ("full",)
    c.full = ConfigDict()
    c.encoder.path, c.teacher.path = "bert-base-multilingual-cased", "bert-base-cased"
    c.data.batch = 256
    del c.optim.lr
    c.optim.lr = c.data.get_ref("batch").to_float() * (2e-5 / 256)  # in proportion to the batch
    c.budget.epochs = 15
    c.eval.start = True
    return c


def own_head(c: ConfigDict) -> ConfigDict:
    """Aligns as `own` a student without a masked-LM head: a first stage trains one, and leaves the encoder as it is.

    The token level would send the gradients of a random head through the student.
    """
    c = own(c)
    c.stages = ("head", "full")
    c.head = ConfigDict({"method": {"name": "pretrain", "trains": "head"}, "eval": {"start": False}})
    c.head.task, c.head.start = ConfigDict(spec.list_defaults(tasks.Masked)), "encoder"
    c.head.optim, c.head.budget = ConfigDict({"lr": 1e-3}), ConfigDict({"epochs": 1, "steps": 0})
    c.full.start = "head"
    return c


def vectors(c: ConfigDict) -> ConfigDict:
    """Aligns a student with the sentence vectors of `teacher.vectors`, in which the word level finds nothing."""
    c = own(c)
    c.teacher.path, c.teacher.vectors, c.method.word = "", "vectors.npy", 0.0
    return c


def corpus(name: str, tag: str) -> dict[str, object]:
    """Returns a corpus of pairs of English and another language, in Moses files as OPUS names them."""
    return {"source": "moses", "path": f"corpora/{name}", "languages": ["en", tag]}


def paper(c: ConfigDict) -> ConfigDict:
    """Follows the authors' script, slips included, on the corpora in the folder `corpora`."""
    c = own(c)
    c.data.train = [
        *(corpus("Europarl", tag) for tag in ("fr", "bg", "de", "es")),
        corpus("EUbookshop", "bg"),
        *(corpus("MultiUN", tag) | {"limit": 2_000_000, "take": "head"} for tag in ("ar", "zh")),
        corpus("IITB", "hi"),
    ]
    c.data.block = 2**17
    c.data.pad_to, c.data.buckets = 128, 1
    c.task.tlm_labels, c.task.word_truncate = "all", False
    c.method.word_label_index, c.method.word_sum = "word", "published"
    c.method.teacher_dropout, c.method.student_passes = True, "separate"
    c.method.bn_group, c.method.structure_group = 32, 32  # examples of a device
    c.optim.decay_mask = "all"
    return c


VARIANTS = {"": synthetic, "ablation": ablation, "own": own, "own_head": own_head, "vectors": vectors, "paper": paper}
