# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Processes share work: each does its part, all get the same results, and an error of one ends all of them."""

import concurrent.futures
import threading
import types

import numpy as np
import pytest
from qa_toys import make_unigram_tokenizer
from share_toys import Store, run_on_all

from xlkd import hub as commits
from xlkd.data import cache, share, sources
from xlkd.data.blocks import Blocks
from xlkd.errors import UserError
from xlkd.inputs import data as inputs
from xlkd.inputs.weights import locate_model
from xlkd.models import hub
from xlkd.runtime import distributed
from xlkd.spec import tasks as settings
from xlkd.tasks import alignment, classify, masked, parallel, qa, tokenization, views

PROCESSES = 4
run_alone = types.SimpleNamespace(gather=lambda function: [function()])
FAST = make_unigram_tokenizer(["▁", "▁a", *"abcdefghijklmnopqrstuvwxyz0123456789"])


class Count:
    """Counts the texts that each process, which is a thread here, tokenizes."""

    def __init__(self, monkeypatch):
        self.texts, encode = {}, tokenization.TextTokenizer._encode_block

        def encode_and_count(tokenizer, texts):
            self.texts[threading.get_ident()] = self.texts.get(threading.get_ident(), 0) + len(texts)
            return encode(tokenizer, texts)

        monkeypatch.setattr(tokenization.TextTokenizer, "_encode_block", encode_and_count)

    def take(self):
        counts, self.texts = sorted(self.texts.values()), {}
        return counts


@pytest.fixture
def count(monkeypatch):
    return Count(monkeypatch)


def make_task(name):
    fields = {"name": name, "max_length": 48}
    if name == "views":
        return views.build(settings.Views(**fields), FAST, make_unigram_tokenizer(["▁", *"abcdefghijklmnop"]))
    if name == "qa":
        return qa.build(settings.QuestionAnswering(name=name, max_length=256, doc_stride=32), FAST)
    module, kind = {
        "classify": (classify, settings.Classify),
        "masked": (masked, settings.Masked),
        "parallel": (parallel, settings.Task),
        "alignment": (alignment, settings.Task),
    }[name]
    return module.build(kind(**fields), FAST)


def read_examples(kind, size=12):
    return sources.read(f"atlas?split=train&size={size}&languages=en,de&facts=3", kind)


@pytest.mark.parametrize("name", ["qa", "classify", "masked", "parallel", "alignment", "views"])
def test_each_process_tokenizes_its_part_and_all_have_the_features_of_one_process(name, count, monkeypatch):
    monkeypatch.setattr(tokenization, "_BLOCK", 8)
    task, rows = make_task(name), list(read_examples(inputs.load_module("tasks", name).ROWS))
    whole = task.features(rows)
    (total,) = count.take()
    for future in run_on_all(lambda share: task.features(rows, share=share), PROCESSES):
        features = future.result()
        assert features.keys() == whole.keys()
        for key, values in whole.items():
            assert values.dtype == features[key].dtype, key
            np.testing.assert_array_equal(features[key], values, err_msg=key)
    counts = count.take()
    assert sum(counts) == total
    assert counts[-1] - counts[0] <= 3 * len(whole), counts  # one text of each round
    assert counts[-1] < 0.3 * total


@pytest.mark.parametrize("texts", [[], ["a"], ["", "北京 a", "", "b" * 300, " "]])
def test_few_texts_and_strange_ones_are_shared_too(texts):
    tokenizer = tokenization.TextTokenizer(FAST)
    whole = tokenizer.encode(texts)
    for future in run_on_all(lambda share: tokenizer.encode(texts, share=share), 3):
        for name, values in vars(future.result()).items():
            np.testing.assert_array_equal(values, vars(whole)[name])
            assert values.dtype == vars(whole)[name].dtype


def test_an_error_of_one_process_is_raised_on_all():
    def work(share):
        def fail():
            if share.process == 1:
                raise UserError("no room", "a folder", "free some")
            return b"done"

        share.gather(lambda: b"first")
        return share.gather(fail)

    errors = [future.exception() for future in run_on_all(work, 3)]
    assert all(isinstance(error, UserError) for error in errors)
    elsewhere = ("no room", "a folder, on process 1", "free some")
    assert [error.args for error in errors] == [elsewhere, ("no room", "a folder", "free some"), elsewhere]


def test_messages_are_deleted_once_all_have_read_them():
    store = Store()

    def work(share):
        for number in range(5):
            results = share.gather(lambda number=number: f"{number} of {share.process}".encode())
            assert results == [f"{number} of {process}".encode() for process in range(3)]

    assert all(future.exception() is None for future in run_on_all(work, 3, store))
    assert store.list_keys() == [f"xlkd/exchange/toy/4/{process}" for process in range(3)]


def test_features_are_built_together_where_one_cache_lacks_them(count, tmp_path, monkeypatch):
    """Each process has a cache of its own; afterwards all have the features, and nobody tokenizes again."""
    folder = threading.local()
    monkeypatch.setattr(cache, "get_folder", lambda: folder.path)
    shares = threading.local()
    monkeypatch.setattr(distributed, "open_share", lambda name: shares.share)
    task, rows = make_task("parallel"), read_examples("parallel")

    class Log(list):
        def __call__(self, line):
            self.append(line)

        def live(self, line):
            pass

    def load(share):
        folder.path, shares.share, log = tmp_path / str(share.process), share, Log()
        return inputs.load_features(task, rows, log), log

    for missing, builders in (([], 3), ([], 0), ([0], 3), ([1, 2], 3)):
        for process in missing:
            for entry in (tmp_path / str(process)).iterdir():
                cache.delete(entry)
        futures = run_on_all(load, 3)
        for future in futures:
            np.testing.assert_array_equal(future.result()[0]["ids"], futures[0].result()[0]["ids"])
        assert len(count.take()) == builders
        assert len({tuple(future.result()[1]) for future in futures}) == 1
        assert all(len(list((tmp_path / str(process)).iterdir())) == 1 for process in range(3))


def test_every_host_downloads_the_commit_that_process_0_resolved(monkeypatch, tmp_path):
    """Between two requests a branch of the hub may get another commit."""
    asked = []
    monkeypatch.setattr(hub, "_FOLDERS", {})
    monkeypatch.setattr(commits, "_COMMITS", {})
    monkeypatch.setattr(hub, "_download", lambda *request: asked.append(request) or (tmp_path, request[1]))
    monkeypatch.setattr(distributed, "open_share", lambda name: run_alone)
    monkeypatch.setattr(distributed, "broadcast_from_primary", lambda name, function: "0a1b")
    assert locate_model("some/encoder", "main") == (tmp_path, "0a1b")
    assert asked == [(commits.Repository("some/encoder", "main"), "0a1b")]
    assert hub.find_resolved("some/encoder", "main") == (tmp_path, "0a1b"), "model cards name the commit"


def make_blocks(share, features):
    return Blocks(
        range(203),
        features,
        lambda f: {"text": f["text"]},
        batch=4,
        block=8,
        edges=(64,),
        limits={},
        seed=0,
        share=share,
    )


def test_blocks_are_loaded_in_one_order_whatever_steps_the_threads_of_a_process_ask_for():
    def work(share):
        shared = []

        def features(rows, share):
            if share:
                shared.append(rows)
                assert share.gather(lambda: repr(rows).encode()) == [repr(rows).encode()] * share.processes
            return {"row": np.array(rows), "text": np.full(len(rows), 10)}

        b = make_blocks(share, features)
        steps = list(range(20, 80))
        b.features(20)  # before the threads begin, as the loop does
        random = np.random.default_rng(share.process)
        jumbled = [step for at in range(0, 60, 8) for step in random.permutation(steps[at : at + 8]).tolist()]
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            rows = dict(zip(jumbled, threads.map(lambda s: b.features(s)["row"][b.at(s).index], jumbled), strict=True))
        b.features(3)  # a step long past: not loaded any more, and other processes need not ask for it
        b.close()
        return [rows[step].tolist() for step in steps]

    results = [future.result() for future in run_on_all(work, 3)]
    alone = make_blocks(None, lambda rows, share: {"row": np.array(rows), "text": np.full(len(rows), 10)})
    assert results == [[alone.features(s)["row"][alone.at(s).index].tolist() for s in range(20, 80)]] * 3
    alone.close()


def test_a_process_that_stops_does_not_wait_for_the_blocks_of_others(monkeypatch):
    """After a signal one process may have asked for one block more than the others."""
    monkeypatch.setattr(share, "_POLL", 20)

    def work(own):
        def features(rows, share):
            share.gather(lambda: b"")
            return {"row": np.array(rows), "text": np.full(len(rows), 10)}

        b = make_blocks(own, features)
        b.features(0)
        with concurrent.futures.ThreadPoolExecutor(1) as thread:  # batches are prepared by threads
            if own.process == 0:
                thread.submit(b.features, 2)  # asks for the third block, which process 1 never does
            b.close()

    for future in run_on_all(work, 2):
        future.result(timeout=60)
