# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MMKD: a multilingual student is aligned with an English teacher on four levels, then fine-tuned on English alone.

    python -m xlkd.main --config=configs/mmkd.py            # the atlas (synthetic data): no level, token only, all
    python -m xlkd.main --config=configs/mmkd.py:ablation   # and all levels but one
    python -m xlkd.main --config=configs/mmkd.py:paper      # mBERT and BERT, every published value, and three tasks
    python -m xlkd.main --config=configs/mmkd.py:own '--config.data.train=moses:corpus?languages=en,de' \\
        --config.encoder.path=STUDENT --config.teacher.path=TEACHER
    python -m xlkd.main --config=configs/mmkd.py:own_head …  # the same for a student without a masked-LM head
    python -m xlkd.main --config=configs/mmkd.py:vectors '--config.data.train=moses:corpus?languages=en,de' \\
        --config.encoder.path=STUDENT --config.teacher.vectors=FILE   # the sentence vectors of any model

Each control is a stage that aligns, followed by the stage `finetune_NAME`, which is trained on English labels and
evaluated by language; in `paper` by three such stages, `xnli_NAME`, `pawsx_NAME` and `qa_NAME`.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict
from xlkd.configs.base import base, list_defaults
from xlkd.configs.finetune import classify, squad

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


def controls(c: ConfigDict, names: tuple[str, ...], finetunings: Mapping[str, ConfigDict] | None = None) -> ConfigDict:
    """Adds for each name a stage that aligns with its weights, and a stage for each way of fine-tuning the result.

    By default that is the one stage of `configs/finetune.py:classify`.
    """
    finetunings = finetunings or {"finetune": classify(base())}
    c.controls = names
    c.stages = tuple(stage for name in names for stage in (name, *(f"{kind}_{name}" for kind in finetunings)))
    for name in names:
        c[name] = ConfigDict({"method": {**LEVELS, **ABLATION[name]}})
        for kind, config in finetunings.items():
            c[f"{kind}_{name}"] = make_finetuning(config, name)
    c.before.budget = ConfigDict({"epochs": 0, "steps": 0})
    others = [name for name in names if name != "full"]
    c.report.compare = tuple(f"{kind}_full:{kind}_{name}" for kind in finetunings for name in others)
    return c


def make_finetuning(config: ConfigDict, start: str) -> ConfigDict:
    """Returns the stage of a variant of `configs/finetune.py`, started from an earlier stage."""
    config = config.copy_and_resolve_references()  # or several stages would have the same blocks
    shared = ("train", "eval", "dev", "retrieval", "batch", "buckets", "pad_to")
    c = ConfigDict({block: config[block] for block in ("task", "optim", "budget", "eval")})
    c.method, c.start = ConfigDict({"name": config.method.name}), start
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
    """Follows the authors' script, slips included, on the corpora in the folder `corpora`; fine-tuning is ours.

    It is evaluated on 8 languages of XNLI, 5 of PAWS-X and 6 of XQuAD, as many as the published means are over.
    """
    finetunings = {"xnli": finetune_xnli(), "pawsx": finetune_pawsx(), "qa": finetune_qa()}
    c = controls(own(c), ("before", "token", "full"), finetunings)
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


def finetune_xnli() -> ConfigDict:
    """Returns the fine-tuning on MultiNLI, evaluated on XNLI in English and the seven languages of the alignment."""
    c = finetune_pairs("tfds:multi_nli?split=train", "tfds:xnli?split=validation&languages=en")
    c.data.eval = "tfds:xnli?split=test&languages=en,ar,bg,de,es,fr,hi,zh"
    c.budget.epochs, c.eval.every = 3, 4000
    return c


def finetune_pawsx() -> ConfigDict:
    """Returns the fine-tuning on English PAWS-X, evaluated in its languages that are among those of the alignment."""
    c = finetune_pairs("tfds:paws_x_wiki/en?split=train", "tfds:paws_x_wiki/en?split=validation")
    c.data.eval = "tfds:paws_x_wiki?split=test&languages=en,de,es,fr,zh"
    c.budget.epochs, c.eval.every = 5, 500
    return c


def finetune_pairs(train: str, dev: str) -> ConfigDict:
    """Returns fine-tuning on pairs of texts, with the habits of XTREME; the best checkpoint in English is exported."""
    c = classify(base())
    c.data.train, c.data.dev = train, dev
    c.data.batch, c.data.buckets = 32, 4
    c.optim.lr, c.eval.keep = 2e-5, "english"
    return c


def finetune_qa() -> ConfigDict:
    """Returns the fine-tuning of `configs/finetune.py:squad`, evaluated on six languages of XQuAD.

    The last checkpoint is exported: XQuAD is a part of SQuAD's development set, which would choose another.
    """
    c = squad(base())
    c.data.eval = "tfds:xquad?languages=en,ar,de,es,hi,zh"
    return c


VARIANTS = {"": synthetic, "ablation": ablation, "own": own, "own_head": own_head, "vectors": vectors, "paper": paper}
