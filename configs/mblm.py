# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""MBLM: monolingual classifiers teach one student with a branch for each language; it is used for other languages too.

    python -m xlkd.main --config=configs/mblm.py                                  # atlas (synthetic data), all controls
    python -m xlkd.main --config=configs/mblm.py --config.method.control=mblm     # one control
    python -m xlkd.main --config=configs/mblm.py:paper                            # mBERT on Amazon's reviews
    python -m xlkd.main --config=configs/mblm.py:xnli                             # e5-small on XNLI; pawsx: on PAWS-X
    python -m xlkd.main --config=configs/mblm.py:xnli --config.stages=single,single_kd,branches,mblm \\
        --config.mblm.teachers.en=DIR --config.mblm.teachers.de=DIR+DIR --config.mblm.teachers.zh=HUB/NAME

Teachers are trained first, each on one language; then four students from one encoder, on the same examples in the same
order. The students differ only in the settings of `CONTROLS`.
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base
from xlkd.configs.finetune import classify

from xlkd import spec
from xlkd.spec import mblm as method
from xlkd.spec import stage

CONTROLS = {  # branches, weight_s, weight_z (λ), weight_h (γ)
    "single": ("one", 0.0, 0.0, 1.0),  # plain multilingual fine-tuning
    "single_kd": ("one", 2.0, 0.0, 0.5),  # adds distillation from the teachers
    "branches": ("each", 2.0, 0.0, 0.5),  # adds a branch for each language
    "mblm": ("each", 1.0, 1.0, 0.5),  # gives half of the distillation's weight to the zero-shot-aware term
}

ENCODERS = {  # of the teachers on real data, by language
    "en": "FacebookAI/roberta-base",
    "de": "google-bert/bert-base-german-cased",
    "zh": "google-bert/bert-base-chinese",
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    return VARIANTS[variant](base())


def mblm(c: ConfigDict, languages: tuple[str, ...]) -> ConfigDict:
    """Adds what all variants share: the method's settings, the controls, and a stage for each teacher."""
    c = classify(c)
    c.controls = tuple(CONTROLS)
    c.stages = (*(f"teacher_{tag}" for tag in languages), *CONTROLS)
    c.task.languages = languages

    c.method.update(spec.list_defaults(method.Method))
    c.method.teacher_labels = ConfigDict({tag: () for tag in languages})
    c.data.update(spec.list_defaults(stage.Data, ("exponent", "mix_rows")))

    # The same object in three stages, so that --config.mblm.teachers.de=DIR sets it for all stages with teachers
    teachers = ConfigDict({tag: f"teacher_{tag}" for tag in languages})
    for name, (branches, weight_s, weight_z, weight_h) in CONTROLS.items():
        weights = {"weight_s": weight_s, "weight_z": weight_z, "weight_h": weight_h}
        c[name] = ConfigDict({"method": {"branches": branches} | weights})
        if weight_s or weight_z:
            c[name].teachers = teachers
    for tag in languages:
        c[f"teacher_{tag}"] = ConfigDict({"method": {"name": "finetune"}, "data": {}, "budget": {}, "optim": {}})
    c.report.compare = ("mblm:single", "single_kd:single", "branches:single_kd", "mblm:branches")
    return c


def synthetic(c: ConfigDict) -> ConfigDict:
    """Trains teachers and students on the atlas (synthetic data)."""
    languages = ("en", "de", "ru")
    c = mblm(c, languages)
    c.data.train = f"atlas?split=train&languages={','.join(languages)}&size=1600&facts=1"
    c.data.eval = "atlas?split=test&languages=en,de,ru,es,fr,tr,ar,hi,zh&size=200&facts=1"
    for tag in languages:
        c[f"teacher_{tag}"].data.train = f"atlas?split=train&languages={tag}&size=6400&facts=1"
        c[f"teacher_{tag}"].data.eval = f"atlas?split=validation&languages={tag}&size=200&facts=1"
    return c


def real(c: ConfigDict, train: str, test: str) -> ConfigDict:
    """Trains on labelled texts, with encoders and numbers of our own choice: those of the paper are not known."""
    languages = tuple(ENCODERS)
    c = mblm(c, languages)
    c.encoder.path, c.encoder.dropout = "intfloat/multilingual-e5-small", -1.0
    c.data.train, c.data.eval = f"{train}&languages={','.join(languages)}", test
    c.data.batch, c.data.buckets = 32, 4
    c.optim.lr, c.budget.epochs = 3e-5, 2
    c.save.every = 1000
    for tag, path in ENCODERS.items():
        c[f"teacher_{tag}"].encoder = ConfigDict({"path": path})
        c[f"teacher_{tag}"].data = ConfigDict({"train": f"{train}&languages={tag}", "eval": f"{test}&languages={tag}"})
        c[f"teacher_{tag}"].optim.lr = 2e-5
    return c


def paper(c: ConfigDict) -> ConfigDict:
    """Trains mBERT on Amazon's reviews in six languages, of which three have labels; read from a folder.

    We believe that the paper has these reviews and XNLI; its introduction names mBERT. Languages, teachers and numbers
    are ours.
    """
    c = real(c, "amazon:amazon_reviews_multi?split=train", "amazon:amazon_reviews_multi?split=test")
    c.encoder.path = "bert-base-multilingual-cased"
    return c


def xnli(c: ConfigDict) -> ConfigDict:
    """Trains on XNLI and its machine translations."""
    return real(c, "xnli:XNLI-MT-1.0?split=train", "xnli:XNLI-1.0?split=test")


def pawsx(c: ConfigDict) -> ConfigDict:
    """Trains on PAWS-X."""
    return real(c, "pawsx:x-final?split=train", "pawsx:x-final?split=test")


VARIANTS = {"": synthetic, "paper": paper, "xnli": xnli, "pawsx": pawsx}
