# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""G-XLT on the atlas, several draws: what may the demo say about self-distillation?

    python -m xlkd.sweep --config=configs/studies/demo.py --over=seed=1,2,3,4,5 \\
        --workdir=runs/studies/demo --results=docs/results/demo

`demo.md` beside this file was written before the runs. A draw is the default of `configs/gxlt.py` with other training
and test questions and another seed, from one start.
"""

from ml_collections import ConfigDict
from xlkd.configs.gxlt import get_config as gxlt


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the study; `seed` is the number of the draw."""
    c = gxlt(variant)
    c.seed = 1
    draw = "&seed=" + c.get_ref("seed").to_str()
    c.data.train = c.data.train.removesuffix("&seed=1") + draw
    c.data.eval = c.data.eval + draw
    c.english.seed = 0  # one start for all draws
    c.report.primary, c.report.judged_by = ("skd:ce", "skd_map:ce"), "atlas/gxlt_off/f1"
    return c
