# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""G-XLT: English question answering, carried to questions and contexts in other languages by self-distillation.

    python -m xlkd.main --config=configs/gxlt.py                                  # atlas (synthetic data), all controls
    python -m xlkd.main --config=configs/gxlt.py:ablation                         # and two without cross-entropy
    python -m xlkd.main --config=configs/gxlt.py --config.method.control=skd_map  # one control
    python -m xlkd.main --config=configs/gxlt.py:paper                            # mBERT, SQuAD and XQuAD, as published
    python -m xlkd.main --config=configs/gxlt.py:paper_pod                        # the same on 64 chips
    python -m xlkd.main --config=configs/gxlt.py:paper --config.start=MODEL --config.stages=zs,ce,skd_map
    python -m xlkd.main --config=configs/gxlt.py:paper --config.stages=english,zs,ce,skd_map,mt \\
        --config.mt.data.train='squad:mt/de.json?languages=de+squad:mt/es.json?languages=es'    # and translate-train

Stage `english` trains on English alone. Each control starts from its result and trains on a few thousand examples whose
question and context are in drawn pairs of languages; `--config.start=MODEL` starts from your own model, its head
included. `paper` is evaluated on all 49 cells of MLQA, on XQuAD and on TyDiQA-GoldP.
"""

from ml_collections import ConfigDict
from xlkd.configs.base import base
from xlkd.configs.finetune import atlas, qa

from xlkd import spec
from xlkd.spec import gxlt as method
from xlkd.spec import stage

CONTROLS = {  # α_CE, α_KL, coefficient
    "zs": (0.0, 0.0, "none"),
    "ce": (1.0, 0.0, "none"),
    "skd": (1.0, 1.0, "none"),
    "skd_map": (1.0, 1.0, "authors"),
}
WITHOUT_CE = {
    "skd_no_ce": (0.0, 1.0, "none"),
    "skd_map_no_ce": (0.0, 1.0, "authors"),
}
TRAINED, TESTED = "en,es,ru,ar", "en,es,ru,ar,hi,zh"
PUBLISHED_TRAINED = "en,es,de,ar,hi,vi,zh"  # of XQuAD
PUBLISHED_TESTS = (
    "tfds:mlqa?split=test&pairs=all",
    f"tfds:xquad?languages={PUBLISHED_TRAINED},el,ru,tr,th",  # translations of the training examples: see the badges
    "tfds:tydi_qa?split=validation&languages=bn,fi,id,ko,ru,sw,te",
)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    return VARIANTS[variant](base())


def gxlt(c: ConfigDict) -> ConfigDict:
    """Adds what all variants share: the stages, the published losses, and the comparisons of the report."""
    c.controls = tuple(CONTROLS)
    c.stages = ("english", *CONTROLS)
    c.start = "english"
    c.english = ConfigDict()
    c.english.start = "encoder"
    c.english.method = ConfigDict({"name": "finetune"})
    c.english.data = ConfigDict()
    c.english.budget = ConfigDict({"epochs": 1, "steps": 0})

    c.method.update(spec.list_defaults(method.Method))
    c.data.update(spec.list_defaults(stage.Data, ("ntl", "pivot", "redraw", "draw_seed")))
    c.data.ntl = 5  # as published
    for name, weights in CONTROLS.items():
        c[name] = make_control(*weights)
    c.zs.budget = ConfigDict({"epochs": 0, "steps": 0})
    c.report.compare = ("ce:zs", "skd:ce", "skd_map:ce", "skd_map:skd")
    return c


def make_control(alpha_ce: float, alpha_kl: float, coefficient: str) -> ConfigDict:
    """Returns the block of a stage with these weights of its losses."""
    return ConfigDict({"method": {"alpha_ce": alpha_ce, "alpha_kl": alpha_kl, "coefficient": coefficient}})


def add_controls_without_ce(c: ConfigDict) -> ConfigDict:
    """Adds self-distillation without cross-entropy, compared with the model that it starts from."""
    for name, weights in WITHOUT_CE.items():
        c[name] = make_control(*weights)
    c.controls += tuple(WITHOUT_CE)
    c.stages += tuple(WITHOUT_CE)
    c.report.compare += tuple(f"{name}:zs" for name in WITHOUT_CE)
    return c


def synthetic(c: ConfigDict) -> ConfigDict:
    """Trains the controls on the atlas (synthetic data), within minutes on CPUs."""
    c = gxlt(atlas(c))
    # With other seeds so small an encoder may learn later to look up facts: see configs/studies/demo.md
    c.english.data.train = "atlas?split=train&languages=en&size=5120&seed=200"
    c.english.data.eval = f"atlas?split=validation&languages={TESTED}&size=60"
    c.english.optim = ConfigDict({"lr": 7e-4})
    # The same in both stages, or the KL measures that they differ; with 0.1 so small an encoder needs more examples
    c.encoder.dropout = 0.05
    c.encoder.layers_as = (
        "scanned"  # compiles faster; so few steps do not make up for the compilation of unrolled layers
    )
    c.data.train = f"atlas?split=train&languages={TRAINED}&size=24&seed=1"
    c.data.eval = f"atlas?split=test&languages={TESTED}&size=40&pairs=all"
    c.data.ntl = 3  # all pairs of the four languages: 16 examples a question, each seen in 6 epochs
    c.optim.lr = 1e-3
    c.budget.epochs, c.method.generation_epochs = 6, 2  # three generations, as published
    c.method.window, c.method.k = (1, 1), 3  # for 80 tokens what (5, 4) and 10 are for 384: chance is 0.07
    return c


def ablation(c: ConfigDict) -> ConfigDict:
    """Trains on the atlas as `synthetic`, also without cross-entropy."""
    return add_controls_without_ce(synthetic(c))


def paper(c: ConfigDict) -> ConfigDict:
    """Follows the authors' scripts: mBERT on SQuAD v1.1, then XQuAD in seven languages; the last weights are tested."""
    c = add_controls_without_ce(gxlt(qa(c)))
    c.encoder.path = "bert-base-multilingual-cased"
    c.seed = 3
    c.data.train = f"tfds:xquad?languages={PUBLISHED_TRAINED}"
    c.data.eval = "+".join(PUBLISHED_TESTS)
    c.data.batch, c.data.pad_to, c.data.buckets = 24, 384, 1
    c.optim.lr, c.optim.warmup, c.optim.weight_decay = 5e-5, 0.0, 0.0
    c.optim.micro_batches = 4
    c.budget.epochs = 3
    c.method.mask_positions = "none"
    c.save.every = 500
    add_cheap_controls(c)
    add_published_ce(c)
    add_translate_train(c)

    c.english.seed = 42
    c.english.data.train, c.english.data.eval = "tfds:squad?split=train", "tfds:xquad"
    c.english.data.batch = 6
    c.english.task = ConfigDict({"doc_stride_means": "overlap", "max_query_length": 0})
    c.english.optim = ConfigDict({"lr": 3e-5, "micro_batches": 1})
    c.english.budget.epochs = 2
    c.english.save = ConfigDict({"every": 2000})
    return c


def add_cheap_controls(c: ConfigDict) -> None:
    """Adds what self-distillation has to beat: `ce` for one epoch, and the mean of the weights before and after it."""
    c.ce_early = ConfigDict({"budget": {"stop_after": 1}})
    for block in ("method", "data"):  # the same objects, so that --config.ce.data.ntl=3 sets both
        c.ce[block] = c.ce.get(block, ConfigDict())
        c.ce_early[block] = c.ce[block]
    c.average = ConfigDict({"budget": {"epochs": 0, "steps": 0}})
    c.average.start = c.get_ref("start") + "+ce"
    c.average.method = c.ce.method
    c.controls += ("ce_early", "average")
    c.stages += ("ce_early", "average")
    c.report.compare += ("skd:ce_early", "skd:average", "skd_map:ce_early", "skd_map:average")


def add_published_ce(c: ConfigDict) -> None:
    """Adds `ce` with three languages a question, where the authors found it best; `ce` has as many as `skd`."""
    c.ce_ntl3 = ConfigDict({"data": {"ntl": 3}})
    c.ce_ntl3.method = c.ce.method
    c.controls += ("ce_ntl3",)
    c.stages += ("ce_ntl3",)
    c.report.compare += ("ce_ntl3:zs", "skd:ce_ntl3", "skd_map:ce_ntl3")


def add_translate_train(c: ConfigDict) -> None:
    """Adds `mt`, cross-entropy on machine-translated questions; not to `stages`, since the user has to name its files.

    It differs from `ce` in its examples alone; the authors published no settings for it.
    """
    c.mt = ConfigDict({"data": {"train": "", "ntl": -1}})
    c.mt.method = c.ce.method
    c.controls += ("mt",)
    c.report.compare += ("mt:zs", "skd:mt", "skd_map:mt")


def paper_pod(c: ConfigDict) -> ConfigDict:
    """Trains `paper` on 64 chips, with 6 examples on each as on each of the authors' devices; not a published setting.

    Learning rates are the published ones × √(batch / published batch): the length of Adam's steps does not depend on
    the gradient's, whose noise falls with the square root of the batch. Epochs, schedule and losses are unchanged.
    Since the rates are so much higher, a tenth of the steps warms up; the authors have no warm-up.
    """
    c = paper(c)
    batch = 6 * 64
    c.optim.lr *= (batch / c.data.batch) ** 0.5  # 24 -> 384: × 4
    c.english.optim.lr *= (batch / c.english.data.batch) ** 0.5  # 6 -> 384: × 8
    c.data.batch = c.english.data.batch = batch
    c.optim.micro_batches, c.optim.warmup = 1, 0.1
    c.eval.batch = 8 * 64
    c.save.every = c.english.save.every = 100  # of about 340 and 460 steps
    return c


VARIANTS = {"": synthetic, "ablation": ablation, "paper": paper, "paper_pod": paper_pod}
