# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every reader under spoilt bytes: rows that are sound, or one line of a UserError; never a traceback, never a hang.

XLKD_EXAMPLES=5000 makes a campaign of it.
"""

import dataclasses
import gzip
import io
import itertools
import json
import os
import pathlib
import tempfile
import tracemalloc

import dirty
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from xlkd.data import sources
from xlkd.errors import UserError, escape_controls
from xlkd.languages import NAMES

EXAMPLES = int(os.environ.get("XLKD_EXAMPLES", "12"))
quickly = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES < 100,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NUMBER = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def folder():
    """Where spoilt files lie, and the caches of what is read."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLKD_CACHE", f"{name}/cache")
        patch.setenv("XLKD_CACHE_GIB", "0.01")
        yield pathlib.Path(name)


def result(read):
    """What was read; None where it was refused in one line."""
    try:
        return read()
    except UserError as error:
        line = str(error)
    assert line == escape_controls(line)
    return None


def write(folder, files):
    place = folder / str(next(NUMBER))
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


def check(row):
    """Every text can be written, and every language is one."""
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, str):
            value.encode()
        if field.name.endswith("language"):
            assert value in NAMES
    assert isinstance(row.id, str)


SPOILT = pytest.mark.parametrize("name", list(dirty.FORMATS))


@SPOILT
def test_what_is_not_spoilt_is_read(name, folder):
    task, source, files = dirty.FORMATS[name]
    assert len(sources.read(source.format(write(folder, files)), task))


@SPOILT
@given(which=dirty.PLACE, operations=dirty.OPERATIONS, policy=st.sampled_from(("skip", "stop")))
@quickly
def test_rows_or_a_line(name, folder, which, operations, policy):
    task, source, files = dirty.FORMATS[name]
    chosen = list(files)[which % len(files)]
    spoilt = files | {chosen: dirty.spoil(files[chosen], operations)}
    rows = result(lambda: list(sources.read(source.format(write(folder, spoilt)), task, policy)))
    for row in rows or ():
        check(row)


JSON = [name for name, (_, _, files) in dirty.FORMATS.items() if next(iter(files)).endswith((".json", ".jsonl"))]


@pytest.mark.parametrize("name", JSON)
@given(which=dirty.PLACE, slips=dirty.SLIPS, policy=st.sampled_from(("skip", "stop")))
@quickly
def test_other_values_in_json(name, folder, which, slips, policy):
    task, source, files = dirty.FORMATS[name]
    chosen = list(files)[which % len(files)]
    whole = task == "qa"
    parts = [files[chosen]] if whole else files[chosen].splitlines()
    parts[which % len(parts)] = dirty.slip(parts[which % len(parts)], slips)
    spoilt = files | {chosen: b"\n".join(parts) + (b"" if whole else b"\n")}
    rows = result(lambda: list(sources.read(source.format(write(folder, spoilt)), task, policy)))
    for row in rows or ():
        check(row)


def test_an_encoding_that_is_none(folder):
    for name in ("UUF-8", "shift_jis", "utf-7"):
        text = dirty.FORMATS["tmx"][2]["m.tmx"].replace(b"UTF-8", name.encode())
        place = write(folder, {"m.tmx": text})
        assert result(lambda place=place: sources.read(f"tmx:{place}/m.tmx?languages=en,de", "parallel")) is None


@given(text=st.text(max_size=80) | st.from_regex(r"[a-z]{2,6}:[^?]{0,20}\?[a-z]+=[^&]*", fullmatch=True))
@quickly
def test_source_strings(text):
    for task in ("qa", "classify", "parallel"):
        result(lambda task=task: sources.read(text, task))


# What is small on disk and not in memory


def packed(parts) -> bytes:
    held = io.BytesIO()
    with gzip.open(held, "wb", compresslevel=1) as file:
        for part in parts:
            file.write(part)
    return held.getvalue()


MANY = 24  # MiB that a packed file grows to, or a tag, a line, a segment
BOMBS = {
    "a line": ("moses:{}/c?languages=en,de", {"c.en.gz": [b"x" * 2**20] * MANY, "c.de": [b"y\n"]}),
    "a segment": (
        "tmx:{}/m.tmx.gz?languages=en,de",
        {"m.tmx.gz": [b"<tmx><body><tu><tuv lang='en'><seg>", *[b"x" * 2**20] * MANY]},
    ),
    "a tag": ("tmx:{}/m.tmx.gz?languages=en,de", {"m.tmx.gz": [b"<tmx><body><tu a='", *[b"x" * 2**20] * MANY]}),
    "a comment": ("tmx:{}/m.tmx.gz?languages=en,de", {"m.tmx.gz": [b"<tmx><!--", *[b"x" * 2**20] * MANY]}),
    "zeros": ("tmx:{}/m.tmx.gz?languages=en,de", {"m.tmx.gz": [b"\0" * 2**20] * MANY}),
    "entities": (
        "tmx:{}/m.tmx?languages=en,de",
        {"m.tmx": [b'<!DOCTYPE t [<!ENTITY a "', b"x" * 999, b'"><!ENTITY b "', b"&a;" * 999, b'">]><tmx>&b;</tmx>']},
    ),
    "a file elsewhere": (
        "tmx:{}/m.tmx?languages=en,de",
        {"m.tmx": [b'<!DOCTYPE t [<!ENTITY a SYSTEM "/etc/passwd">]><tmx><body><tu><tuv lang="en"><seg>&a;</seg>']},
    ),
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_memory_does_not_follow_what_is_packed(name, folder):
    source, files = BOMBS[name]
    data = {file: packed(parts) if file.endswith(".gz") else b"".join(parts) for file, parts in files.items()}
    place = write(folder, data)
    tracemalloc.start()
    rows = result(lambda: list(sources.read(source.format(place), "parallel", "skip")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows is None
    assert peak < 12 * 2**20


# Models


GOLDEN = pathlib.Path(__file__).parent / "golden" / "encoders" / "bert"


@pytest.fixture(scope="module")
def model(folder):
    """A tiny encoder with all heads, its tokenizer in two forms, and what stands beside it."""
    from qa_toys import make_word_tokenizer

    from xlkd.models import hf, sentences

    found = hf.load(GOLDEN)
    record = {"version": 1, "task": {"name": "qa", "max_length": 64}, "dtype": "float32", "seen": {"training": ["en"]}}
    files = sentences.pooling_files(found.architecture, "mean", 12)
    tokenizer = make_word_tokenizer([*"abcdefgh"])
    hf.save(folder / "model", found.architecture, found.params, tokenizer=tokenizer, record=record, files=files)
    files = [path for path in (folder / "model").rglob("*") if path.is_file()]
    return Files((str(path.relative_to(folder / "model")), path.read_bytes()) for path in files)


class Files(dict):
    """Not shown where a test fails."""

    def __repr__(self) -> str:
        return ", ".join(self)


def opened(place):
    """Opens a model as every command does."""
    from xlkd import api
    from xlkd.models import hf, sentences
    from xlkd.tasks.tokenization import TextTokenizer

    sentences.read_pooling_files(place)
    api.find_task(str(place))
    found, tokenizer = hf.load(place), hf.load_tokenizer(place)
    template = TextTokenizer(tokenizer)
    assert isinstance(template.pad_id, int)
    template.join_pair(*(one.ids for one in template.encode(["a b", "c z"])), 12)
    settings_of = api.Model(
        place, None, found.architecture, found.params, tokenizer, (), api.read_record(place)
    ).question_settings()
    assert type(settings_of.max_length) is int
    return ()


MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "xlkd.json", "modules.json")


@pytest.mark.parametrize("file", MODEL)
@given(operations=dirty.OPERATIONS)
@quickly
def test_a_model_or_a_line(file, folder, model, operations):
    place = write(folder, model | {file: dirty.spoil(model[file], operations)})
    result(lambda: opened(place))


@pytest.mark.parametrize("file", [name for name in MODEL if name.endswith(".json")])
@given(slips=dirty.SLIPS)
@quickly
def test_a_model_with_other_values(file, folder, model, slips):
    place = write(folder, model | {file: dirty.slip(model[file], slips)})
    result(lambda: opened(place))


@given(slips=dirty.SLIPS)
@quickly
def test_the_head_of_safetensors(folder, model, slips):
    data = model["model.safetensors"]
    size = int.from_bytes(data[:8], "little")
    head = dirty.slip(data[8 : 8 + size], slips)
    spoilt = len(head).to_bytes(8, "little") + head + data[8 + size :]
    result(lambda: opened(write(folder, model | {"model.safetensors": spoilt})))


@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS)
@quickly
def test_shards_and_a_plain_vocabulary(folder, model, operations, slips):
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    words = dirty.lines("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c")
    files = {name: data for name, data in model.items() if name not in ("model.safetensors", "tokenizer.json")}
    files |= {"one.safetensors": model["model.safetensors"], "vocab.txt": dirty.spoil(words, operations)}
    files |= {"two.safetensors": model["model.safetensors"]}
    files["model.safetensors.index.json"] = dirty.slip(index, slips)
    result(lambda: opened(write(folder, files)))


@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS, bytewise=st.booleans())
@quickly
def test_a_student_of_several_branches(folder, operations, slips, bytewise):
    from mblm_toys import LABELS, METHOD, make_architecture

    from xlkd.export import branch_checkpoint

    record = {
        "version": 1, "task": {"name": "classify", "labels": LABELS, "languages": ["en"], "max_length": 8},
        "method": METHOD, "dtype": "float32", "architecture": dataclasses.asdict(make_architecture()), "labels": LABELS,
    }  # fmt: skip
    data = json.dumps(record).encode()
    place = write(folder, {"xlkd.json": dirty.spoil(data, operations) if bytewise else dirty.slip(data, slips)})
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"trunk/a": np.ones(3), "trunk/b/c": np.ones(2)}, place / branch_checkpoint.WEIGHTS)
    found = result(lambda: branch_checkpoint.load(place))
    assert found is None or all(isinstance(label, str) for label in found.labels)


# What commands read


QUESTION = [{"id": 1, "question": "Who?", "context": "Anna went."}, {"question": "谁?", "context": "安娜"}]
TEXT = [{"id": "a", "text": "x", "second": "y", "language": "de"}, {"text": "z"}]


@pytest.mark.parametrize("kind", ["_parse_question", "_parse_text"])
@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS, bytewise=st.booleans(), policy=st.sampled_from(("skip", "stop")))
@quickly
def test_what_predict_is_asked(kind, operations, slips, bytewise, policy):
    from xlkd import predict

    rows = [
        json.dumps(row, ensure_ascii=False).encode() for row in {"_parse_question": QUESTION, "_parse_text": TEXT}[kind]
    ]
    data = b"\n".join([dirty.slip(rows[0], slips), rows[1]])
    data = dirty.spoil(b"\n".join(rows), operations) if bytewise else data
    bad = sources.BadRows(policy)
    asked = result(lambda: list(predict._read_inputs(data.splitlines(keepends=True), bad, getattr(predict, kind), {})))
    for one in asked or ():
        predict.format_line({"id": one.id}).encode()


@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS, bytewise=st.booleans())
@quickly
def test_answers_in_a_file(folder, operations, slips, bytewise):
    from xlkd import evaluate

    data = json.dumps({"1": "Anna", "2": "Ünal", "12": "安娜"}).encode()
    place = write(
        folder,
        {
            "mine.json": dirty.squad("1", "2"),
            "answers.json": dirty.spoil(data, operations) if bytewise else dirty.slip(data, slips),
        },
    )
    rows = sources.read(f"squad:{place}/mine.json", "qa")
    found = result(lambda: evaluate._evaluate_predictions({"predictions": f"{place}/answers.json"}, rows))
    assert found is None or 0 <= found["mean"]["f1"] <= 100


@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS, bytewise=st.booleans())
@quickly
def test_the_config_of_a_run(folder, operations, slips, bytewise):
    from xlkd import settings as configs

    data = json.dumps(configs.to_plain(configs.read_config("configs/gxlt.py"))).encode()
    data = dirty.spoil(data, operations) if bytewise else dirty.slip(data, slips)
    place = write(folder, {"config.json": data})

    def stages():
        config = configs.apply_flags(configs.read_config(str(place / "config.json")), ["--config.seed=3"])
        return configs.read_stages(config)

    result(stages)


@given(file=st.sampled_from(("done", "a.npy")), operations=dirty.OPERATIONS)
@quickly
def test_an_entry_of_the_cache_is_whole_or_made_again(folder, file, operations):
    import numpy as np

    from xlkd.data import cache

    name = f"dirty-{next(NUMBER):032}"
    made = {"a": np.arange(20), "b": np.ones((2, 3), np.float32)}
    cache.load_or_build(name, lambda: made)
    path = cache.get_folder() / name / file
    path.write_bytes(dirty.spoil(path.read_bytes(), operations))
    found = cache.load_or_build(name, lambda: made)
    assert all(np.array_equal(found[key], made[key]) for key in made)
