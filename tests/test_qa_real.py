# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Question answering on the real files and tokenizers: every offset, every gold span, every cell."""

import collections

import numpy as np
import pytest

from xlkd.data import sources
from xlkd.metrics import squad
from xlkd.models import hf
from xlkd.tasks.qa import count_spans
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.tasks.windows import EXACT, WIDE, Settings, cut_into_windows

pytestmark = [pytest.mark.long, pytest.mark.shared]
TOKENIZERS = ("multilingual-e5-small", "all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def xquad(shared_data):
    return sources.read(f"xquad:{shared_data / 'xquad'}", "qa")


@pytest.fixture(scope="module")
def mlqa(shared_data):
    return sources.read(f"mlqa:{shared_data / 'mlqa_dev'}?pairs=all", "qa")


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request, shared):
    return hf.load_tokenizer(shared / "models" / request.param)


def test_all_questions_are_read(xquad, mlqa, shared_data):
    assert collections.Counter(row.context_language for row in xquad) == dict.fromkeys(
        ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"), 1190
    )
    assert len({row.group for row in xquad}) == 240
    assert len(mlqa) == len({row.key for row in mlqa}) == 15_747
    diagonal = collections.Counter(r.context_language for r in mlqa if r.context_language == r.question_language)
    assert diagonal == {"ar": 517, "de": 512, "en": 1148, "es": 500, "hi": 507, "vi": 511, "zh": 504}
    assert len({(row.question_language, row.context_language) for row in mlqa}) == 49
    groups = collections.defaultdict(set)
    for row in mlqa:
        groups[row.group].add(row.id)
    assert (len(groups), max(map(len, groups.values()))) == (933, 6)
    assert len(sources.read(f"tydiqa:{shared_data / 'tydiqa'}", "qa")) == 5_321


def test_blanked_files_are_refused(shared_data):
    dropped = sources.read(
        f"tydiqa:{shared_data / 'tydiqa'}+tydiqa:{shared_data / 'tydiqa' / 'as_in_xtreme'}?split=dev", "qa", "skip"
    ).dropped
    assert len(dropped) == 440 + 276
    assert {reason.split(" (")[0] for _, reason in dropped} == {"no gold answer"}


def test_every_gold_span_decodes_to_its_answer(xquad, mlqa, tokenizer):
    """A span gives its own text; if tokens cross its edge (`▁2013,`, an unknown Thai word), a text that contains it."""
    rows = [*xquad, *(row for row in mlqa if row.question_language == row.context_language)]
    windows = cut_into_windows(rows, TextTokenizer(tokenizer), Settings())
    wide = collections.Counter()
    for r, row in enumerate(rows):
        base = windows.token_splits[windows.context[r]]
        low = windows.token_begin[base + windows.gold_first[r]]
        high = windows.token_end[base + windows.gold_last[r]]
        text, answer = row.context[low:high], row.answers[0].text.strip()
        assert answer in text
        assert windows.gold[r] in (EXACT, WIDE)
        assert (text == answer) == (windows.gold[r] == EXACT)
        wide[row.context_language] += text != answer and squad.normalise(text) != squad.normalise(answer)
    thai = wide.pop("th")
    assert sum(wide.values()) < 0.01 * len(rows)
    assert thai <= 90  # The English WordPiece reads a whole clause as one unknown word.
    assert all(text["lost"] == text["beyond"] == 0 for text in count_spans(windows).values())


def test_the_49_cells_give_the_known_windows(mlqa, shared):
    windows = cut_into_windows(
        mlqa, TextTokenizer(hf.load_tokenizer(shared / "models" / "multilingual-e5-small")), Settings()
    )
    assert len(windows) == 22_686
    assert len(np.unique(windows.context)) == 3_640
    assert (windows.lengths <= 384).all()
