# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading damaged files: every reader returns valid rows or raises a UserError of one line; no traceback, no hang.

XLKD_EXAMPLES=5000 runs many more examples.
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
from xlkd.languages import find_tag

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
    """Returns the folder of damaged files, which also contains the caches."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLKD_CACHE", f"{name}/cache")
        patch.setenv("XLKD_CACHE_GIB", "0.01")
        yield pathlib.Path(name)


def read_or_refuse(read):
    """Returns the result of reading, or None for a UserError of one line."""
    try:
        return read()
    except UserError as error:
        line = str(error)
    assert line == escape_controls(line)
    return None


def write_files(folder, files):
    place = folder / str(next(NUMBER))
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


def check_row(row):
    """Checks that every text can be encoded and every language is known."""
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, str):
            value.encode()
        if field.name.endswith("language"):
            assert find_tag(value) == value
    assert isinstance(row.id, str)


SPOILT = pytest.mark.parametrize("name", list(dirty.FORMATS))


@SPOILT
def test_undamaged_files_are_read(name, folder):
    task, source, files = dirty.FORMATS[name]
    assert len(sources.read(source.format(write_files(folder, files)), task))


@SPOILT
@given(which=dirty.PLACE, operations=dirty.OPERATIONS, policy=st.sampled_from(("skip", "stop")))
@quickly
def test_damaged_bytes_give_rows_or_a_user_error(name, folder, which, operations, policy):
    task, source, files = dirty.FORMATS[name]
    chosen = list(files)[which % len(files)]
    spoilt = files | {chosen: dirty.spoil(files[chosen], operations)}
    rows = read_or_refuse(lambda: list(sources.read(source.format(write_files(folder, spoilt)), task, policy)))
    for row in rows or ():
        check_row(row)


JSON = [name for name, (_, _, files) in dirty.FORMATS.items() if next(iter(files)).endswith((".json", ".jsonl"))]


@pytest.mark.parametrize("name", JSON)
@given(which=dirty.PLACE, slips=dirty.SLIPS, policy=st.sampled_from(("skip", "stop")))
@quickly
def test_wrong_values_in_json_give_rows_or_a_user_error(name, folder, which, slips, policy):
    task, source, files = dirty.FORMATS[name]
    chosen = list(files)[which % len(files)]
    one_document = task == "qa"
    parts = [files[chosen]] if one_document else files[chosen].splitlines()
    parts[which % len(parts)] = dirty.slip(parts[which % len(parts)], slips)
    spoilt = files | {chosen: b"\n".join(parts) + (b"" if one_document else b"\n")}
    rows = read_or_refuse(lambda: list(sources.read(source.format(write_files(folder, spoilt)), task, policy)))
    for row in rows or ():
        check_row(row)


def test_an_unknown_encoding_is_refused(folder):
    for name in ("UUF-8", "shift_jis", "utf-7"):
        text = dirty.FORMATS["tmx"][2]["m.tmx"].replace(b"UTF-8", name.encode())
        place = write_files(folder, {"m.tmx": text})
        assert (
            read_or_refuse(lambda place=place: sources.read(f"tmx:{place}/m.tmx?languages=en,de", "parallel")) is None
        )


@given(text=st.text(max_size=80) | st.from_regex(r"[a-z]{2,6}:[^?]{0,20}\?[a-z]+=[^&]*", fullmatch=True))
@quickly
def test_source_strings_give_rows_or_a_user_error(text):
    for task in ("qa", "classify", "parallel", "masked"):
        read_or_refuse(lambda task=task: sources.read(text, task))


# Files that are small on disk and large in memory


def compress(parts) -> bytes:
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb", compresslevel=1) as file:
        for part in parts:
            file.write(part)
    return buffer.getvalue()


MANY = 24  # MiB of a decompressed file, tag, line or segment
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
def test_decompression_uses_little_memory(name, folder):
    source, files = BOMBS[name]
    data = {file: compress(parts) if file.endswith(".gz") else b"".join(parts) for file, parts in files.items()}
    place = write_files(folder, data)
    tracemalloc.start()
    rows = read_or_refuse(lambda: list(sources.read(source.format(place), "parallel", "skip")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows is None
    assert peak < 12 * 2**20


# Models


GOLDEN = pathlib.Path(__file__).parent / "golden" / "encoders" / "bert"


@pytest.fixture(scope="module")
def model(folder):
    """Returns the files of a tiny encoder with all heads, its tokenizer in two forms, and other files of an export."""
    from qa_toys import make_word_tokenizer

    from xlkd.models import hf, sentences

    base = hf.load(GOLDEN)
    record = {"version": 1, "task": {"name": "qa", "max_length": 64}, "dtype": "float32", "seen": {"training": ["en"]}}
    files = sentences.pooling_files(base.architecture, "mean", 12)
    tokenizer = make_word_tokenizer([*"abcdefgh"])
    hf.save(folder / "model", base.architecture, base.params, tokenizer=tokenizer, record=record, files=files)
    files = [path for path in (folder / "model").rglob("*") if path.is_file()]
    return Files((str(path.relative_to(folder / "model")), path.read_bytes()) for path in files)


class Files(dict):
    """Files by name; their content is not printed when a test fails."""

    def __repr__(self) -> str:
        return ", ".join(self)


def open_model(place):
    """Opens a model as every command does."""
    from xlkd import api
    from xlkd.models import hf, sentences
    from xlkd.tasks.tokenization import TextTokenizer

    sentences.read_pooling_files(place)
    api.find_task(str(place))
    checkpoint, tokenizer = hf.load(place), hf.load_tokenizer(place)
    template = TextTokenizer(tokenizer)
    assert isinstance(template.pad_id, int)
    template.join_pair(*(encoded.ids for encoded in template.encode(["a b", "c z"])), 12)
    question_settings = api.Model(
        place, None, checkpoint.architecture, checkpoint.params, tokenizer, (), api.read_record(place)
    ).question_settings()
    assert type(question_settings.max_length) is int
    return ()


MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "xlkd.json", "modules.json")


@pytest.mark.parametrize("file", MODEL)
@given(operations=dirty.OPERATIONS)
@quickly
def test_a_damaged_model_is_loaded_or_refused(file, folder, model, operations):
    place = write_files(folder, model | {file: dirty.spoil(model[file], operations)})
    read_or_refuse(lambda: open_model(place))


@pytest.mark.parametrize("file", [name for name in MODEL if name.endswith(".json")])
@given(slips=dirty.SLIPS)
@quickly
def test_a_model_with_wrong_values_is_loaded_or_refused(file, folder, model, slips):
    place = write_files(folder, model | {file: dirty.slip(model[file], slips)})
    read_or_refuse(lambda: open_model(place))


@given(slips=dirty.SLIPS)
@quickly
def test_a_damaged_header_of_safetensors_is_loaded_or_refused(folder, model, slips):
    data = model["model.safetensors"]
    size = int.from_bytes(data[:8], "little")
    head = dirty.slip(data[8 : 8 + size], slips)
    spoilt = len(head).to_bytes(8, "little") + head + data[8 + size :]
    read_or_refuse(lambda: open_model(write_files(folder, model | {"model.safetensors": spoilt})))


@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS)
@quickly
def test_damaged_shards_and_vocabularies_are_loaded_or_refused(folder, model, operations, slips):
    from safetensors.numpy import load, save

    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    tensors = sorted(load(model["model.safetensors"]).items())
    words = dirty.lines("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c")
    files = {name: data for name, data in model.items() if name not in ("model.safetensors", "tokenizer.json")}
    files |= {"one.safetensors": save(dict(tensors[:20])), "two.safetensors": save(dict(tensors[20:]))}
    files["vocab.txt"] = dirty.spoil(words, operations)
    files["model.safetensors.index.json"] = dirty.slip(index, slips)
    read_or_refuse(lambda: open_model(write_files(folder, files)))


@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS, bytewise=st.booleans())
@quickly
def test_a_damaged_branch_checkpoint_is_loaded_or_refused(folder, operations, slips, bytewise):
    from mblm_toys import LABELS, METHOD, make_architecture

    from xlkd.export import branch_checkpoint

    record = {
        "version": 1, "task": {"name": "classify", "labels": LABELS, "languages": ["en"], "max_length": 8},
        "method": METHOD, "dtype": "float32", "architecture": dataclasses.asdict(make_architecture()), "labels": LABELS,
    }  # fmt: skip
    data = json.dumps(record).encode()
    place = write_files(folder, {"xlkd.json": dirty.spoil(data, operations) if bytewise else dirty.slip(data, slips)})
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"trunk/a": np.ones(3), "trunk/b/c": np.ones(2)}, place / branch_checkpoint.WEIGHTS)
    checkpoint = read_or_refuse(lambda: branch_checkpoint.load(place))
    assert checkpoint is None or all(isinstance(label, str) for label in checkpoint.labels)


# Inputs of commands


QUESTION = [{"id": 1, "question": "Who?", "context": "Anna went."}, {"question": "谁?", "context": "安娜"}]
TEXT = [{"id": "a", "text": "x", "second": "y", "language": "de"}, {"text": "z"}]


@pytest.mark.parametrize("kind", ["_parse_question", "_parse_text"])
@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS, bytewise=st.booleans(), policy=st.sampled_from(("skip", "stop")))
@quickly
def test_damaged_inputs_of_predict_are_read_or_refused(kind, operations, slips, bytewise, policy):
    from xlkd import predict

    rows = [
        json.dumps(row, ensure_ascii=False).encode() for row in {"_parse_question": QUESTION, "_parse_text": TEXT}[kind]
    ]
    data = b"\n".join([dirty.slip(rows[0], slips), rows[1]])
    data = dirty.spoil(b"\n".join(rows), operations) if bytewise else data
    bad = sources.BadRows(policy)
    inputs = read_or_refuse(
        lambda: list(predict._read_inputs(data.splitlines(keepends=True), bad, getattr(predict, kind), {}))
    )
    for question in inputs or ():
        predict.format_line({"id": question.id}).encode()


@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS, bytewise=st.booleans())
@quickly
def test_a_damaged_file_of_answers_is_scored_or_refused(folder, operations, slips, bytewise):
    from xlkd import evaluate

    data = json.dumps({"1": "Anna", "2": "Ünal", "12": "安娜"}).encode()
    place = write_files(
        folder,
        {
            "mine.json": dirty.squad("1", "2"),
            "answers.json": dirty.spoil(data, operations) if bytewise else dirty.slip(data, slips),
        },
    )
    rows = sources.read(f"squad:{place}/mine.json", "qa")
    scores = read_or_refuse(lambda: evaluate._evaluate_predictions({"predictions": f"{place}/answers.json"}, rows))
    assert scores is None or 0 <= scores["mean"]["f1"] <= 100


@given(operations=dirty.OPERATIONS, slips=dirty.SLIPS, bytewise=st.booleans())
@quickly
def test_a_damaged_config_is_read_or_refused(folder, operations, slips, bytewise):
    from xlkd import settings as configs

    data = json.dumps(configs.to_plain(configs.read_config("configs/gxlt.py"))).encode()
    data = dirty.spoil(data, operations) if bytewise else dirty.slip(data, slips)
    place = write_files(folder, {"config.json": data})

    def read_stages():
        config = configs.apply_flags(configs.read_config(str(place / "config.json")), ["--config.seed=3"])
        return configs.read_stages(config)

    read_or_refuse(read_stages)


@given(file=st.sampled_from(("done", "a.npy")), operations=dirty.OPERATIONS)
@quickly
def test_a_damaged_entry_of_the_cache_is_rebuilt(folder, file, operations):
    import numpy as np

    from xlkd.data import cache

    name = f"dirty-{next(NUMBER):032}"
    arrays = {"a": np.arange(20), "b": np.ones((2, 3), np.float32)}
    cache.load_or_build(name, lambda: arrays)
    path = cache.get_folder() / name / file
    path.write_bytes(dirty.spoil(path.read_bytes(), operations))
    loaded = cache.load_or_build(name, lambda: arrays)
    assert all(np.array_equal(loaded[key], arrays[key]) for key in arrays)
