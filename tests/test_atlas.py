# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The atlas: identical bytes everywhere, exact spans, claims that do not reveal their label, uninflected names."""

import collections
import hashlib
import itertools
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import unicodedata

import pytest

from xlkd.data import atlas
from xlkd.data.atlas import deal, freeze, grammar
from xlkd.data.atlas.draw import Draw
from xlkd.data.sources import read
from xlkd.errors import UserError
from xlkd.languages import is_without_spaces

FROZEN = "506d627b2861c9b227a15e9a3e67e74ff63abc3b4b2817daebc2d22efebe64c4"
ROOT = pathlib.Path(__file__).resolve().parents[1]

DIGEST = """
import hashlib
from xlkd.data.sources import read
digest = hashlib.sha256()
for text, task in [("qa?pairs=all&countries=2&facts=3", "qa"), ("s", "classify"), ("p", "parallel"), ("m", "masked")]:
    options = text.partition("?")[2]
    for row in read("atlas?split=test&seed=3&size=6&frames=all" + ("&" + options if options else ""), task):
        digest.update(repr(row).encode())
print(digest.hexdigest())
"""
# Any changed word of a template changes this digest; after an intended change write the new digest here.
DIGEST_OF_ALL_VIEWS = "5c003d686970c438ce3de8ae75cf69ef1c525944244afc94aed3197513a430c4"
# Caches name rows by this version: after a change of names, templates or rows write a new version and digest here.
VERSION, DIGEST_OF_VERSION = "a3365f7cd7ba7eee", "d2fc3e4b0f831afb48cc0aa4238e94ecec96661e5d52ae2d7b345aba429a3a3f"


def compute_digest_in_a_process(**environment: str) -> str:
    command = [sys.executable, "-c", DIGEST]
    return subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize(("seed", "locale"), [("0", "C"), ("4242", "tr_TR.UTF-8")])
def test_bytes_are_identical_in_another_process_and_locale(seed, locale):
    assert compute_digest_in_a_process(PYTHONHASHSEED=seed, LC_ALL=locale) == DIGEST_OF_ALL_VIEWS


def test_the_version_changes_with_names_templates_and_rows():
    digest = hashlib.sha256(DIGEST_OF_ALL_VIEWS.encode())
    for file in sorted(pathlib.Path(atlas.__file__).parent.glob("*.json")):
        digest.update(file.read_bytes())
    assert (atlas.VERSION, digest.hexdigest()) == (VERSION, DIGEST_OF_VERSION)


def test_the_file_of_frozen_names_is_unchanged():
    assert hashlib.sha256(freeze.TARGET.read_bytes()).hexdigest() == FROZEN


@pytest.mark.parametrize("language", ["ru", "zh"])
def test_frozen_names_equal_those_of_a_process_that_reads_one_language(language):
    babel = pytest.importorskip("babel", reason="Babel is a development dependency")
    frozen = json.loads(freeze.TARGET.read_text(encoding="utf-8"))
    if babel.__version__ != frozen["babel"]:
        pytest.skip(f"frozen from Babel {frozen['babel']}, here is {babel.__version__}")
    code = f"""
import json
from babel import Locale
own = Locale({language!r})
pools = json.loads(open({str(freeze.TARGET)!r}, encoding="utf-8").read())["pools"]
tables = dict(country=own.territories, region=own.territories, currency=own.currencies, language=own.languages,
              script=own.scripts, weekday=dict(zip("mon tue wed thu fri sat sun".split(),
              (own.days["format"]["wide"][day] for day in range(7)))))
print(json.dumps({{pool: [table[code] for code in pools[pool]] for pool, table in tables.items()}}))
"""
    alone = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    column = frozen["languages"].index(language)
    assert alone == {pool: [row[column] for row in frozen["pools"][pool].values()] for pool in alone}


def test_a_fresh_freeze_gives_the_same_file():
    babel = pytest.importorskip("babel", reason="Babel is a development dependency")
    if babel.__version__ != json.loads(freeze.TARGET.read_text(encoding="utf-8"))["babel"]:
        pytest.skip("another Babel")
    assert freeze.make_text() == freeze.TARGET.read_text(encoding="utf-8")


def test_the_atlas_runs_without_babel():
    code = (
        "import sys; sys.modules['babel'] = None\nfrom xlkd.data.sources import read; print(read('atlas', 'qa')[0].id)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_splits_share_no_name_in_any_language():
    folded = {
        split: {(i, name.casefold()) for place in places for i, name in enumerate(deal.NAMES[place])}
        for split, places in deal.COUNTRIES.items()
    }
    assert {split: len(places) for split, places in deal.COUNTRIES.items()} == deal.SPLITS
    for a, b in itertools.combinations(folded.values(), 2):
        assert not a & b
    everywhere = set().union(*folded.values())
    for pool, places in deal.POOLS.items():
        named = {(i, name.casefold()) for place in places for i, name in enumerate(deal.NAMES[place])}
        assert not named & everywhere, pool


@pytest.mark.parametrize("options", ["", "&countries=2&facts=3", "&frames=held_out&facts=8", "&frames=all&facts=2"])
def test_every_answer_equals_its_span_and_occurs_once(options):
    for row in read(f"atlas?split=validation&size=4&pairs=all{options}", "qa"):
        (answer,) = row.answers
        assert row.context[answer.start : answer.start + len(answer.text)] == answer.text
        assert row.context.casefold().count(answer.text.casefold()) == 1


def test_ids_and_values_are_aligned_over_languages():
    rows = read("atlas?size=30&pairs=all&languages=en,ru,zh", "qa")
    cells = collections.defaultdict(dict)
    for row in rows:
        cells[row.id][row.question_language, row.context_language] = row
    assert len(cells) == 30
    assert len({row.group for row in rows}) == 15
    assert len({row.key for row in rows}) == len(rows) == 30 * 9
    for cell in cells.values():
        assert len(cell) == 9
        places = set()
        for (_, language), row in cell.items():
            column = deal.LANGUAGES.index(language)
            text = row.answers[0].text.casefold()
            places.add(frozenset(i for i, names in enumerate(deal.NAMES) if names[column].casefold() == text))
        assert frozenset.intersection(*places)
        # In a language the question has one wording, whatever the language of the passage; and there is one passage.
        assert len({row.question for (question_language, _), row in cell.items() if question_language == "ru"}) == 1
        assert len({row.context for (_, language), row in cell.items() if language == "ru"}) == 1


def test_passages_do_not_depend_on_the_requested_languages():
    alone = list(read("atlas?size=20&languages=el", "qa"))
    among = [row for row in read("atlas?size=20", "qa") if row.context_language == "el"]
    assert alone == among


def test_no_name_in_a_passage_contains_another():
    for i in range(300):
        dealt = deal.deal_passage(Draw("alike", i), "train", 4, 2)
        places = {*dealt.countries, *(fact.value for fact in dealt.facts)}
        assert len(places) == 2 + 8
        for a, b in itertools.combinations(places, 2):
            for x, y in zip(deal.NAMES[a], deal.NAMES[b], strict=True):
                assert x.casefold() not in y.casefold()
                assert y.casefold() not in x.casefold()


def test_labels_are_balanced_and_a_claim_alone_does_not_reveal_its_label():
    rows = read("atlas?size=6000&languages=en", "classify")
    claims = collections.defaultdict(collections.Counter)
    for row in rows:
        claims[row.label][remove_names(row.second)] += 1
    assert [sum(counts.values()) for counts in claims.values()] == [2000] * 3
    all_claims = set().union(*claims.values())
    assert len(all_claims) > 30
    for claim in all_claims:
        # The 3 labels are equally likely: each count is within 5 standard deviations of their mean.
        mean = sum(counts[claim] for counts in claims.values()) / 3
        assert all(abs(counts[claim] - mean) < 5 * max(mean, 1) ** 0.5 for counts in claims.values()), claim


def test_the_values_of_claims_do_not_predict_the_label():
    weekdays = {deal.NAMES[place][0] for place in deal.POOLS["weekday"]}
    counts = collections.Counter()
    for row in read("atlas?size=6000&languages=en", "classify"):
        counts.update((row.label, day) for day in weekdays if day in row.second)
    for day in weekdays:
        of_day = [counts[label, day] for label in atlas.LABELS]
        mean = sum(of_day) / 3
        assert mean > 20
        assert all(abs(count - mean) < 5 * mean**0.5 for count in of_day), (day, of_day)


def test_a_claim_is_entailed_exactly_if_the_text_contains_its_names():
    for row in read("atlas?size=300&languages=en", "classify"):
        assert (row.label == "entailment") == (set(NAME.findall(row.second)) <= set(NAME.findall(row.text)))


def remove_names(claim: str) -> str:
    """Returns a claim without its names: its relation, frame and synonym remain."""
    return NAME.sub("_", claim)


NAME = re.compile(rf"\b(?:{'|'.join(sorted({re.escape(row[0]) for row in deal.NAMES}, key=len, reverse=True))})\b")


@pytest.mark.parametrize("language", atlas.LANGUAGES)
def test_names_are_not_inflected(language):
    """Checks that no letter is adjacent to a name, except in scripts without spaces."""
    for i in range(40):
        dealt = deal.deal_passage(Draw("bare", i), "train", 8)
        sentences = tuple(grammar.Sentence(fact, i % 4, i % 2, i // 2 % 2) for fact in dealt.facts)
        text = grammar.write_text(language, sentences, header=i % 2)
        assert len(text.spans) == 9
        for spans in text.spans:
            for span in filter(None, (spans.country, spans.value)):
                around = text.text[max(span[0] - 1, 0) : span[0]] + text.text[span[1] : span[1] + 1]
                assert is_without_spaces(language) or not any(map(is_letter, around)), (text.text, span)


def is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


@pytest.mark.parametrize("language", atlas.LANGUAGES)
def test_sentences_begin_with_a_capital_and_end_with_the_punctuation_of_the_language(language):
    stop = {"hi": "।", "zh": "。"}.get(language, ".")
    mark = {"el": ";", "ar": "؟", "zh": "？", "fr": "."}.get(language, "?")
    for i in range(30):
        dealt = deal.deal_passage(Draw("stop", i), "test", 8)
        for fact in dealt.facts:
            sentence = grammar.write_text(language, (grammar.Sentence(fact, i % 4, i % 2),)).text
            question = grammar.write_question(language, fact, i % 3, i % 2)
            assert sentence.endswith(stop)
            assert question.endswith(mark)
            assert question.startswith("¿") == (language == "es")
            for text in (sentence, question.lstrip("¿")):
                assert not text[0].islower(), text
                assert "  " not in text
                assert not re.search(r"[{}<>\[\]]", text)


def test_a_turkish_i_is_capitalized_with_its_dot():
    assert grammar.capitalize("ipek", "tr") == "İpek"
    assert grammar.capitalize("ipek", "de") == "Ipek"
    assert grammar.capitalize("euro", "es") == "Euro"


@pytest.mark.parametrize("language", atlas.LANGUAGES)
def test_language_files_are_complete(language):
    file = json.loads((freeze.TARGET.parent / f"{language}.json").read_text(encoding="utf-8"))
    assert set(file["relations"]) == set(atlas.RELATIONS)
    for relation in file["relations"].values():
        assert len(set(relation["nouns"])) == 2
        assert len(set(relation["says"])) == 4
        assert len(set(relation["asks"])) == 3
        assert all(template.count("{v}") == 1 for template in relation["says"])
        assert all("{v}" not in template for template in relation["asks"])


def test_held_out_frames_and_countries_stay_out_of_training_text():
    held_out = [deal.NAMES[place] for split in ("validation", "test") for place in deal.COUNTRIES[split]]
    names = {name for row in held_out for name in (row[0], row[4])}
    for row in read("atlas?size=400&languages=en,ru", "masked"):
        for text in (row.source, row.target):
            assert "As everyone knows" not in text
            assert "Как известно" not in text
            countries = re.findall(r"country called ((?:[A-Z][\w’-]* ?(?:& )?)+)|стран\w+ ([А-Я][\w-]*)", text)
            assert not {name.strip() for pair in countries for name in pair} & names


@pytest.mark.parametrize(("source", "target"), [("en", "zh"), ("de", "hi"), ("ar", "el"), ("zh", "tr")])
def test_links_connect_the_same_names(source, target):
    for row in read(f"atlas?size=25&languages={source},{target}&pairs=all&facts=3", "parallel"):
        left, right = (
            atlas.split_words(row.source, row.source_language),
            atlas.split_words(row.target, row.target_language),
        )
        assert row.links
        assert all(0 <= i < len(left) and 0 <= j < len(right) for i, j in row.links)
        partners = collections.defaultdict(set)
        for i, j in row.links:
            partners[left[i].strip(".,،।。")].add(right[j].strip(".,،।。"))
        for year in re.findall(r"(?<!\d)(?:17|18|19)\d\d(?!\d)", row.source):
            assert partners[year] == {year}


def test_words_are_split_at_spaces_and_in_chinese_at_characters():
    assert atlas.split_words("La monnaie s’appelle yen.", "fr") == ["La", "monnaie", "s’appelle", "yen."]
    assert atlas.split_words("法国成立于1984年。", "zh") == ["法", "国", "成", "立", "于", "1984", "年", "。"]


def test_translations_say_the_same_in_the_same_order():
    rows = read("atlas?size=20&languages=en,de,ar", "parallel")
    assert [(row.source_language, row.target_language) for row in rows[:2]] == [("en", "de"), ("en", "ar")]
    assert all(rows[2 * i].source == rows[2 * i + 1].source and rows[2 * i].id == rows[2 * i + 1].id for i in range(20))
    assert len({row.source for row in rows}) == 20


def test_pretraining_examples_have_the_configured_share_of_translations():
    rows = read("atlas?size=2000&languages=en,de,ru", "masked")
    across = sum(row.source_language != row.target_language for row in rows)
    assert 0.56 < across / len(rows) < 0.64
    assert all(row.source_language == row.target_language for row in read("atlas?size=200&kind=same", "masked"))
    assert all(row.source_language != row.target_language for row in read("atlas?size=200&kind=translation", "masked"))
    assert {row.target_language for row in read("atlas?size=50&languages=en", "masked")} == {"en"}
    assert not any(row.source == row.target for row in rows)


def test_rows_are_generated_on_demand():
    rows = read("atlas?size=1000000000&languages=en,de", "qa")
    assert len(rows) == 2_000_000_000
    assert rows[1_999_999_999].id == "train-0-499999999-q1"
    assert rows[-1] == rows[1_999_999_999]
    assert [row.id for row in rows[2:4]] == ["train-0-0-q1"] * 2
    assert len(read("atlas?size=1000&limit=7", "classify")) == 7
    with pytest.raises(IndexError):
        read("atlas?size=3&languages=en", "qa")[3]


def test_only_rows_of_small_sources_are_remembered():
    small, large = (read(f"atlas?size={size}&languages=en", "qa").parts[0] for size in (100, 100_000))
    assert small[-1] is small[99]
    assert large[5] == large[5]
    assert large[5] is not large[5]
    small[3]
    assert len(pickle.dumps(small)) < 1000


def test_rows_can_be_pickled():
    for task in ("qa", "classify", "parallel", "masked"):
        rows = read("atlas?size=3&seed=9", task)
        assert pickle.loads(pickle.dumps(rows))[2] == rows[2]


def test_seeds_and_splits_deal_different_passages():
    texts = {read(f"atlas?size=1&seed={s}&split={p}", "qa")[0].context for s in (0, 1) for p in deal.SPLITS}
    assert len(texts) == 6


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("atlas?sise=3", "qa", "did you mean 'size'"),
        ("atlas?languages=en,fi", "qa", "no 'fi'"),
        ("atlas?facts=9", "qa", "facts=9"),
        ("atlas?facts=1", "qa", "facts=1"),
        ("atlas?facts=8", "classify", "give 1 to 7"),
        ("atlas?countries=3", "qa", "give 1 or 2"),
        ("atlas?countries=2", "classify", "unknown option 'countries'"),
        ("atlas?split=dev", "qa", "choose one of train, validation, test"),
        ("atlas?languages=en", "parallel", "two languages"),
        ("atlas?languages=en&kind=translation", "masked", "two languages"),
        ("atlas?share=101", "masked", "percentage"),
        ("atlas:somewhere", "qa", "takes no path"),
        ("atlas?size=0", "qa", "no rows"),
    ],
)
def test_bad_options_are_refused_with_their_reason(text, task, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read(text, task)


def test_the_page_of_the_atlas_shows_its_texts():
    card = (ROOT / "docs" / "atlas.md").read_text(encoding="utf-8")
    for language in atlas.LANGUAGES:
        question = read(f"atlas?split=validation&size=1&languages={language}", "qa")[0]
        claim = read(f"atlas?split=validation&size=1&languages={language}", "classify")[0]
        for text in (question.context, question.question, question.answers[0].text, claim.text, claim.second):
            assert text in card
