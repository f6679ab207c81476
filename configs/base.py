# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What all configs share; each of them says what it changes."""

from ml_collections import ConfigDict


def base() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.stages = ()
    c.controls = ()  # stages that are compared with each other
    c.start = "encoder"  # the encoder below, the name of an earlier stage, or the folder of a model with its head

    c.encoder = ConfigDict()
    c.encoder.path = "package:multilingual"  # a folder, a hub id, or an encoder of the package
    c.encoder.revision = ""  # of a hub id; the one that was taken is recorded
    c.encoder.dtype = "float32"  # of the computation; parameters are float32
    c.encoder.layers_as = "auto"  # scanned, unrolled, or auto: by device
    c.encoder.remat = "none"  # none, full, dots, dots_no_batch
    c.encoder.dropout = -1.0  # -1: as the encoder's own config says
    c.encoder.trim_vocab = False  # train the pieces of the run's own texts alone; what is exported has all of them

    c.task = ConfigDict()
    c.data = ConfigDict()
    c.data.train = ""
    c.data.eval = ""  # for the stage's own task
    c.data.dev = ""  # that chooses the checkpoint; empty: data.eval
    c.data.retrieval = ""  # sentence pairs for retrieval accuracy
    c.data.on_bad_row = "stop"  # or skip: count and list them
    c.data.batch = 32
    c.data.buckets = 4  # compiled shapes
    c.data.pad_to = 0  # one length for all rows, where not 0

    c.method = ConfigDict()
    c.method.variant = "all"  # or one of the controls
    c.teacher = ConfigDict()
    c.teacher.path = ""  # of another encoder than the student's, where the method asks for one
    c.teacher.revision = ""
    c.teacher.cache = "auto"  # keep its answers where each is used more than once; or off
    c.teachers = ConfigDict()  # by language: classifiers (folder, hub id, earlier stage), several joined with +
    c.optim = ConfigDict()
    c.optim.lr = 5e-5
    c.optim.schedule = "linear"  # constant, linear, cosine
    c.optim.warmup = 0.1  # a share of the steps, or steps where 1 or more
    c.optim.b1, c.optim.b2, c.optim.eps = 0.9, 0.999, 1e-8
    c.optim.weight_decay = 0.01
    c.optim.decay_mask = "matrices"  # or all
    c.optim.clip = 1.0
    c.optim.micro_batches = 1  # a step in so many parts; the result is the same

    c.budget = ConfigDict()
    c.budget.epochs = 1
    c.budget.steps = 0  # instead of epochs, where not 0

    c.save = ConfigDict()
    c.save.every = 200  # steps
    c.eval = ConfigDict()
    c.eval.every = 0  # steps; 0: at the end only
    c.eval.start = False  # also before the first step
    c.eval.batch = 64
    c.eval.keep = "last"  # the checkpoint that goes on: last; or by its mean score: english, supervised, best (all)

    c.mesh = ConfigDict()
    c.mesh.data, c.mesh.fsdp, c.mesh.tensor = -1, 1, 1  # -1: the rest of the devices
    c.mesh.branch = 1  # of models with branches: parts that they are spread over
    c.mesh.dcn_data = -1  # TPU slices that `data` is spread over, as no other axis can be; -1: as many as there are
    c.report = ConfigDict()
    c.report.compare = ()  # differences "a:b" of two stages
    c.log = ConfigDict()
    c.log.every = 20  # steps
    return c
