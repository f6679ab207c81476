# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A stage as a typed value: read once from the config, resolved once the data is read, never written to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

from xlkd import files
from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.spec import SourceText, setting, shorten
from xlkd.spec.optim import MOST_STEPS, Budget, Horizon, Optim
from xlkd.spec.tasks import Task

# Keys and blocks that a method reads only where its module names them in READS; all methods read the others
OPTIONAL = (
    *("data.ntl", "data.pivot", "data.redraw", "data.draw_seed", "data.exponent", "data.mix_rows"),
    *("data.identities", "data.cap", "data.take", "data.block", "data.alignment"),
    *("teacher.path", "teacher.revision", "teacher.vectors", "teacher.cache", "teachers"),
)

MOST_PROFILED = 1000  # steps; viewers read a trace as a whole
_WINDOW = re.compile("([0-9]{1,20}):([0-9]{1,20})")

M = TypeVar("M", bound="Method")
T = TypeVar("T", bound=Task)


@dataclasses.dataclass(frozen=True)
class Method:
    """Settings of every method; each method adds its own in the module of its name."""

    name: str = setting("", "The method: a module of xlkd/methods.")


@dataclasses.dataclass(frozen=True)
class NewEncoder:
    """An encoder that is trained from random weights, with a tokenizer of its own; for `encoder.path=new`."""

    model_type: Literal["xlm-roberta", "bert"] = setting("xlm-roberta", "Architecture.")
    vocabulary: int = setting(4000, "Tokens of the vocabulary.", at_least=100, at_most=1_000_000)
    texts: SourceText = setting(SourceText(""), "Data source that the tokenizer is trained on.")
    hidden_size: int = setting(128, "Width.", at_least=1, at_most=65_536)
    layers: int = setting(4, "Layers.", at_least=1, at_most=1000)
    heads: int = setting(4, "Attention heads.", at_least=1, at_most=1024)
    positions: int = setting(258, "Positions.", at_least=8, at_most=65_536)
    embedding_scale: float = setting(0.02, "Standard deviation of new embeddings.", at_least=1e-6, at_most=100)
    disk: Literal["float32", "float16", "bfloat16"] = setting("float32", "Type of the exported weights.")


@dataclasses.dataclass(frozen=True)
class Encoder:
    """The student's encoder, and how it is computed."""

    path: str = setting("package:multilingual", "Folder, hub id, package:NAME, or new.")
    revision: str = setting("", "Revision of a hub id; the commit that was loaded is recorded.")
    dtype: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", "Type of the computation; parameters are float32."
    )
    layers_as: Literal["auto", "scanned", "unrolled"] = setting(
        "auto", "Layers in a scan or unrolled; auto decides by the device."
    )
    remat: Literal["none", "full", "dots", "dots_no_batch"] = setting("none", "What the backward pass computes again.")
    dropout: float = setting(
        -1.0, "Overrides all dropout rates; -1 keeps the encoder's own.", at_least=0, at_most=0.99, also=(-1,)
    )
    attention_dropout: float = setting(
        -1.0,
        "Overrides the dropout of attention weights alone; 0 lets cuDNN's fused kernel train on a GPU.",
        at_least=0,
        at_most=0.99,
        also=(-1,),
    )
    trim_vocab: bool = setting(False, "Train only the tokens of the run's own texts; exports have the full vocabulary.")
    new: NewEncoder = NewEncoder()


@dataclasses.dataclass(frozen=True)
class Data:
    """Sources and batches. The settings listed in `OPTIONAL` are read by the methods that name them."""

    train: SourceText = setting(SourceText(""), "Source of the training examples.")
    eval: SourceText = setting(SourceText(""), "Source that the stage's own task is evaluated on.")
    dev: SourceText = setting(SourceText(""), "Source that chooses the checkpoint; empty takes data.eval.")
    retrieval: SourceText = setting(SourceText(""), "Sentence pairs for retrieval accuracy.")
    on_bad_row: Literal["stop", "skip"] = setting(
        "stop", "A malformed example stops the run, or is skipped, counted and listed."
    )
    batch: int = setting(32, "Examples of a step.", at_least=1, at_most=1_000_000)
    buckets: int = setting(4, "Lengths that batches are padded to: as many compiled shapes.", at_least=1, at_most=1024)
    tile: int = setting(
        0,
        "Positions that a device pads attention to, which decides the lengths; 0: 128 on a TPU, else 1.",
        at_least=0,
        at_most=1024,
    )
    pad_to: int = setting(0, "One length for all batches; 0 pads by bucket.", at_least=0, at_most=65_536)

    ntl: int = setting(
        -1,
        "Languages drawn for each question, beside the pivot; -1 takes the examples as they are.",
        at_least=-1,
        at_most=1000,
    )
    pivot: str = setting("en", "Language in which each question is always drawn, or none.")
    redraw: Literal["never", "epoch"] = setting("never", "Draw other language pairs in each epoch.")
    draw_seed: int = setting(
        0, "Seed of the drawn pairs, the same for all seeds of training.", at_least=0, at_most=2**32 - 1
    )
    exponent: float = setting(
        1.0, "Languages get shares in proportion to examples ** exponent.", at_least=0, at_most=10
    )
    mix_rows: bool = setting(True, "Mix languages in a batch; False gives each batch one language.")
    identities: bool = setting(False, "Add English paired with itself, as often as one language occurs.")
    cap: int = setting(0, "Pairs of each two languages; 0 takes all.", at_least=0, at_most=10**12)
    take: Literal["random", "head"] = setting("random", "Which pairs a cap takes.")
    block: int = setting(
        0, "Examples tokenized at a time, for corpora beyond memory; 0: all at once.", at_least=0, at_most=10**9
    )
    alignment: SourceText = setting(SourceText(""), "Sentence pairs with word links.")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher with an encoder of its own or with vectors of texts, and the caching of any teacher's targets."""

    path: str = setting("", "Folder, hub id or package:NAME, where the method needs a teacher encoder.")
    revision: str = setting("", "Revision of a hub id.")
    vectors: str = setting("", "File of sentence vectors of any model, in place of a teacher encoder.")
    cache: Literal["auto", "tolerant", "off"] = setting(
        "auto", "Cache targets that are used more than once; tolerant takes those of another mesh too; or off."
    )


@dataclasses.dataclass(frozen=True)
class Save:
    """The interval between saved checkpoints."""

    every: int = setting(200, "Steps between checkpoints.", at_least=1, at_most=MOST_STEPS)


@dataclasses.dataclass(frozen=True)
class Eval:
    """The settings of evaluations, and of the choice of the exported checkpoint."""

    every: int = setting(0, "Steps between evaluations; 0 evaluates at the end.", at_least=0, at_most=MOST_STEPS)
    start: bool = setting(False, "Evaluate before the first step as well.")
    batch: int = setting(
        64,
        "Examples of an evaluation batch; on several accelerators up to 8 on each, on CPUs fewer if they are long.",
        at_least=1,
        at_most=65_536,
    )
    keep: Literal["last", "best", "supervised", "english"] = setting(
        "last", "Checkpoint that is exported: the last, or the best by the mean score of these languages."
    )


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The division of the devices over the axes of the mesh."""

    data: int = setting(-1, "Devices along the batch; -1 takes the rest.", at_least=1, at_most=65_536, also=(-1,))
    fsdp: int = setting(
        1, "Devices that parameters and batch are sharded over.", at_least=1, at_most=65_536, also=(-1,)
    )
    tensor: int = setting(1, "Devices that each layer is divided over.", at_least=1, at_most=65_536, also=(-1,))
    branch: int = setting(1, "Devices that branches are spread over.", at_least=1, at_most=65_536)
    dcn_data: int = setting(
        -1, "TPU slices that the batch is spread over; -1 takes all.", at_least=1, at_most=65_536, also=(-1,)
    )
    fsdp_shards: Literal["parameters", "moments"] = setting(
        "parameters", "What fsdp divides: parameters and moments (FSDP), or moments and update alone (ZeRO-1)."
    )
    sum_dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Type in which gradients are summed over data; auto: that in which they were computed."
    )


@dataclasses.dataclass(frozen=True)
class Log:
    """Settings of the log."""

    every: int = setting(20, "Steps between log lines.", at_least=1, at_most=MOST_STEPS)
    to: tuple[str, ...] = setting(
        ("tensorboard",), "Trackers of values: tensorboard, wandb, or another module of xlkd/runtime/trackers."
    )
    profile: str = setting("", "Steps FIRST:LAST that are profiled for XProf, as the log counts them; empty: none.")

    @property
    def profiled_steps(self) -> range:
        """Returns the steps of `profile`, of which the last one is included."""
        if not self.profile:
            return range(0)
        where, example = "config.log.profile", "for example 100:110"
        if not (match := _WINDOW.fullmatch(self.profile)):
            raise UserError(f"{shorten(repr(self.profile))} is not FIRST:LAST", where, example)
        first, last = int(match[1]), int(match[2])
        if not 1 <= first <= last <= MOST_STEPS:
            what = f"no steps {shorten(self.profile)}: the first is 1 or later, the last is not before it"
            raise UserError(what, where, example)
        if last - first >= MOST_PROFILED:
            what = f"{last - first + 1} steps are more than a profile can hold"
            raise UserError(what, where, f"give at most {MOST_PROFILED}")
        return range(first, last + 1)


@dataclasses.dataclass(frozen=True)
class StageSettings(Generic[M, T]):
    """Settings of one stage: the shared blocks, overridden by the stage's own values."""

    name: str
    run: str  # digest of the run's whole config
    task: T
    method: M
    seed: int = setting(0, "Seed of initialisation, order of examples and dropout.", at_least=0, at_most=2**32 - 1)
    start: str = setting(
        "encoder", "Where weights come from: encoder, an earlier stage, a folder, or a hub id; A+B is their mean."
    )
    start_revision: str = setting("", "Revision of a hub id in start; the commit that was loaded is recorded.")
    encoder: Encoder = Encoder()
    data: Data = Data()
    teacher: Teacher = Teacher()
    teachers: Mapping[str, str] = setting(
        {}, "Classifiers by language (folder, hub id or earlier stage), several joined with +."
    )
    optim: Optim = dataclasses.field(default_factory=Optim)
    budget: Budget = dataclasses.field(default_factory=Budget)
    save: Save = Save()
    eval: Eval = Eval()
    mesh: Mesh = Mesh()
    log: Log = Log()

    @property
    def weights_from(self) -> str:
        """Returns where the weights come from, as a path, a hub id, or the name of a stage."""
        return self.start if self.start != "encoder" else self.encoder.path


@dataclasses.dataclass(frozen=True)
class StageSpec(StageSettings[M, T]):
    """A resolved stage: labels, steps and widths are known from its data, `layers_as` from the device."""

    horizon: Horizon = dataclasses.field(default_factory=lambda: Horizon(0, 0, (0,)))
    vector_width: int = 0  # of `teacher.vectors`


def list_starts(start: str) -> list[str]:
    """Returns the models that a stage starts from: several are joined with +, and their weights are averaged."""
    return [start] if files.expand_path(start).is_dir() else [name.strip() for name in start.split("+")]


def check_shared_blocks(settings: StageSettings[Any, Any]) -> None:
    """Refuses settings of the shared blocks that are impossible together."""
    optim, steps = settings.optim, settings.budget.steps
    settings.task.check()
    settings.log.profiled_steps  # noqa: B018 (refuses an impossible window)
    if steps and optim.warmup > steps:
        what = f"a warm-up of {optim.warmup:g} steps is longer than the training of {steps}"
        raise UserError(what, "config.optim.warmup", "shorten it, or give it as a share such as 0.1")
    if optim.lr * optim.weight_decay >= 1:
        what = (
            f"lr × weight_decay = {optim.lr * optim.weight_decay:g} would change the sign of the weights at each step"
        )
        raise UserError(what, "config.optim", "lower one of them")
    if 0 < settings.data.block < settings.data.batch:
        what = f"a block of {settings.data.block} rows is smaller than a batch of {settings.data.batch}"
        raise UserError(what, "config.data.block", "make it larger")
    if settings.data.block and settings.data.exponent != 1:
        what = "languages are not sampled by exponent from a corpus that is read in blocks"
        raise UserError(what, "config.data.exponent", "set it to 1, or config.data.block to 0")
    if settings.data.pivot != "none":
        normalise_tag(settings.data.pivot, "config.data.pivot")
    if settings.start == "encoder" and settings.encoder.path == "new":
        _check_new_encoder(settings.encoder.new)


def _check_new_encoder(new: NewEncoder) -> None:
    """Refuses a new encoder without texts for its tokenizer, or whose heads do not divide its width."""
    if not new.texts:
        raise UserError("is empty", "config.encoder.new.texts", "name a source for the tokenizer")
    if new.hidden_size % new.heads:
        what = f"{new.heads} heads do not divide a hidden size of {new.hidden_size}"
        raise UserError(what, "config.encoder.new.heads", "choose a divisor")


AnySettings = StageSettings[Any, Any]  # of any method and any task
AnyStage = StageSpec[Any, Any]
