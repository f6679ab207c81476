# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The first screen of the report: differences with intervals, means, heat maps; its size and place in a browser."""

from __future__ import annotations

import html
import html.parser
import itertools
import json
import pathlib
import re

import pytest
from reports_toys import (
    draw_labels,
    draw_questions,
    use_few_resamples,
    write_grid_run,
    write_label_run,
    write_lines,
    write_pair_run,
    write_run,
    write_stage,
)

from xlkd import reports
from xlkd.reports import heatmaps, overview, scales

LANGUAGES = ("ar", "de", "en", "es", "hi", "th", "zh")
LONG = {
    "ar": "ذهبت آنا إلى السوق يوم الاثنين واشترت ثلاث تفاحات. دفعت نقدا. " * 4,
    "th": "แอนนาไปตลาดในวันจันทร์และซื้อแอปเปิ้ลสามลูก เธอจ่ายด้วยเหรียญ " * 4,
    "zh": "安娜星期一去了市场，买了三个苹果。她用硬币付了钱。" * 5,
}
CONTROLS = ("zs", "ce", "skd", "skd_map", "skd_no_ce", "skd_map_no_ce", "average")
PAIRS = ("ce:zs", "skd:ce", "skd_map:ce", "skd_map:skd", "skd_no_ce:zs", "skd_map_no_ce:zs", "average:ce")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    use_few_resamples(monkeypatch)


def write_page(*folders: pathlib.Path) -> str:
    out = folders[0].parent if len(folders) > 1 else folders[0]
    reports.write(folders, lambda line: None, reports.locate_outputs(folders, folder=out))
    return (out / "report.html").read_text(encoding="utf-8")


def write_large_draw(folder: pathlib.Path, draw: int, groups: int = 4) -> pathlib.Path:
    """Writes a draw of 49 cells for each of seven controls, two of whose differences are primary."""
    report = {"compare": PAIRS, "primary": PAIRS[1:3], "judged_by": "toy/gxlt_off/f1"}
    write_run(folder, CONTROLS, seed=draw, report=report)
    seen = {"training": ["en"], "selection": ["en"], "teacher": []}
    for number, control in enumerate(CONTROLS, 1):
        rows = [
            row
            | {"key": f"{draw}{row['group']}{question}{context}", "id": f"{draw}{row['id']}"}
            | {"question_language": question, "context_language": context}
            for i, question in enumerate(LANGUAGES)
            for j, context in enumerate(LANGUAGES)
            for row in draw_questions(0.2 + 0.09 * number, seed=99 * draw + 7 * i + j, languages=("en",), groups=groups)
        ]
        write_stage(folder, number, control, {"eval": rows}, seen=seen)
    pairs = {language: next(row for row in rows if row["context_language"] == language) for language in LONG}
    texts = [
        {key: row[key] for key in ("key", "id", "group", "set", "question_language", "context_language")}
        | {"question": text, "context": text, "answers": [{"text": text[8:20], "start": 8}]}
        for (language, row), text in zip(pairs.items(), LONG.values(), strict=True)
    ]
    write_lines(folder / "texts" / "eval.jsonl", texts)
    return folder


class Parser(html.parser.HTMLParser):
    """Collects elements, and the text inside each, in the order in which they end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict, list[str]]] = []
        self.elements: list[tuple[str, dict, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in {"meta", "br", "hr"}:
            return
        self.open.append((tag, dict(attrs), []))

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def handle_endtag(self, tag):
        name, attributes, texts = self.open.pop()
        assert name == tag, f"<{name}> ends with </{tag}>"
        self.elements.append((name, attributes, "".join(texts)))

    def select(self, tag: str, css_class: str = "") -> list[tuple[dict, str]]:
        """Returns attributes and text of the elements of a tag and a class."""
        return [
            (attributes, text)
            for name, attributes, text in self.elements
            if name == tag and css_class in ["", *attributes.get("class", "").split()]
        ]


def select_differences(text: str) -> list[str]:
    """Returns the sentences of the first forest plot."""
    plot = re.search(r'<ul class="forest">(.*?)</ul>', text, re.S)[1]
    return [said for attributes, said in Parser(plot).select("li") if attributes.get("class") != "axis"]


def test_each_comparison_is_a_sentence_with_interval_and_verdict(tmp_path):
    text = write_page(write_grid_run(tmp_path))
    numbers = json.loads((tmp_path / "results.json").read_text())["sets"]["toy"]["comparisons"]
    sentences = select_differences(text)
    assert [said.partition(":")[0] for said in sentences] == [name.replace(":", " − ") for name in numbers]
    for said, compared in zip(sentences, numbers.values(), strict=True):
        assert re.fullmatch(r"\w+ − \w+: [+−]\d+\.\d F1 \(−?\d+\.\d to −?\d+\.\d\), [a-z ]+", said)
        number = compared["averages"]["gxlt"]["f1"]
        assert f"{number['value']:+.1f} F1".replace("-", "−") in said
        assert said.endswith("significantly better") == (number["verdict"] == "better")


def test_the_page_is_well_formed_and_in_the_order_of_the_questions_of_a_reader(tmp_path):
    text = write_page(write_grid_run(tmp_path))
    page = Parser(text.partition("</head>")[2].partition("<script")[0])
    order = [
        attributes["id"]
        for name, attributes, _ in page.elements
        if name in {"section", "details"} and "id" in attributes
    ]
    expected = [
        "set0",
        "key",
        "curves",
        "coefficient",
        "cost",
        "contamination",
        "questions",
        "words",
        "tables0",
        "panels",
        "left",
    ]
    assert [anchor for anchor in order if anchor in expected] == expected
    folded = [attributes["id"] for attributes, _ in page.select("details", "fold")]
    assert folded == ["key", "words", "tables0", "panels", "left"]
    assert not [attributes for attributes, _ in page.select("details", "fold") if "open" in attributes]
    sentences = json.loads((tmp_path / "results.json").read_text())["sentences"]
    assert all(html.escape(sentence) in text for sentence in sentences)


def test_cells_can_be_focused_and_say_value_interval_number_and_badges(tmp_path):
    text = write_page(write_grid_run(tmp_path))
    page = Parser(text.partition("</head>")[2].partition("<script")[0])
    assert len(page.select("table", "heat")) == 5 + 2, "three systems and two differences, and their means"
    labels = [attributes["aria-label"] for attributes, _ in page.select("td") if "aria-label" in attributes]
    assert len(labels) == 5 * (9 + 7) + 2 * 5 * 3, "cells and means, and the means by language again"
    score = next(label for label in labels if label.startswith("ce, question de, context ar: "))
    assert re.fullmatch(r"ce, .*: \d+\.\d \(\d+\.\d to \d+\.\d\) F1; n = 30; badges .+; \w[\w-]+", score)
    difference = next(label for label in labels if label.startswith("skd − ce, question de, context ar: "))
    assert re.search(r"[+−]?\d+\.\d \(.* to .*\) F1; [a-z ]+; adjusted p [\d.]+; n = 30; badges", difference)
    for table in re.findall(r'<table class="heat".*?</table>', text, re.S):
        assert table.count('tabindex="0"') == 1, "the tab key reaches each table once"
        assert 'role="grid"' in table


def test_all_scores_share_one_scale_whose_legend_has_its_numbers(tmp_path):
    text = write_page(write_grid_run(tmp_path))
    scores, differences = re.findall(
        r'<span class="scale">(.*?</i><span>[^<]+</span>(?:<span class="sure">[^<]+</span>)?)</span>', text
    )
    edges = [float(edge) for edge in re.findall(r"<span>(\d+)</span>", scores)]
    values = [
        cell["f1"]["value"]
        for system in json.loads((tmp_path / "results.json").read_text())["sets"]["toy"]["systems"].values()
        for cell in system["cells"].values()
    ]
    assert edges[0] <= min(values) <= max(values) <= edges[-1]
    assert edges == sorted(edges)
    assert re.findall(r"<span>([+−]?[\d.]+)</span>", differences).count("0") == 1
    assert scores.count("<i ") == len(edges) - 1


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        ((12.3, 68.0), (10, 20, 30, 40, 50, 60, 70)),
        ((50.0, 50.0), (50, 51)),
        ((0.0, 0.031), None),
        ((-3.0, 99.9), None),
    ],
)
def test_a_scale_of_scores_covers_all_values_in_round_steps(values, edges):
    scale = scales.make_score_scale(values)
    assert edges is None or scale.edges == edges
    assert scale.edges[0] <= min(values) <= max(values) <= scale.edges[-1]
    assert 1 <= len(scale.classes) == len(scale.edges) - 1 <= 9
    assert scale.choose_class(min(values)) == scale.classes[0]
    assert scale.choose_class(max(values)) == scale.classes[-1]


def test_a_scale_of_differences_has_zero_in_its_middle_and_turns_where_less_is_better():
    scale = scales.make_difference_scale([-3.2, 8.0], finest=1.0, lower_is_better=False)
    assert scale.edges == (-8, -6, -4, -2, 0, 2, 4, 6, 8)
    assert (scale.choose_class(0.1), scale.choose_class(-0.1)) == ("b0", "w0")
    assert (scale.choose_class(7.9), scale.choose_class(-3.2)) == ("b3", "w1")
    turned = scales.make_difference_scale([-3.2, 8.0], finest=1.0, lower_is_better=True)
    assert (turned.choose_class(7.9), turned.choose_class(-3.2)) == ("w3", "b1")
    small = scales.make_difference_scale([0.2], finest=1.0, lower_is_better=False)
    assert small.edges == (-1, 0, 1), "a difference far below the steps of the scores stays pale"


def test_text_is_legible_on_every_colour_and_lightness_orders_the_scores():
    for palettes in scales.PALETTES.values():
        for colour in itertools.chain(*palettes):
            assert max(scales.compute_contrast(colour, text) for text in (scales.BLACK, scales.WHITE)) >= 4.5
    for palette, sign in ((scales.SCORES, 1), (scales.SCORES_DARK, -1)):
        against_white = [sign * scales.compute_contrast(colour, "#ffffff") for colour in palette]
        assert against_white == sorted(against_white)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(45.25, 1, "45.2"), (100.0, 1, "100"), (-0.04, 1, "0.0"), (-12.3, 1, "−12"), (-0.4, 0, "0")],
)
def test_numbers_in_cells_are_short(value, digits, text):
    assert heatmaps.format_short(value, digits) == text


def test_labelled_and_parallel_data_have_a_row_for_each_control_and_difference(tmp_path):
    for build, names in (
        (write_label_run, ["branches", "mblm", "differences", "mblm − branches"]),
        (write_pair_run, ["start", "align", "differences", "align − start"]),
    ):
        text = write_page(build(tmp_path / build.__name__))
        (table,) = re.findall(r'<table class="heat".*?</table>', text, re.S)
        rows = [said for attributes, said in Parser(table).select("th") if attributes["scope"] != "col"]
        assert rows == names
    assert select_differences(write_page(tmp_path / "write_label_run"))[1].startswith(
        "mblm − branches, zero-shot mean: +"
    )


def test_runs_side_by_side_and_seeds_have_their_differences(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        write_label_run(tmp_path / name, seed=seed)
    text = write_page(*(tmp_path / name for name in "abc"))
    assert text.count('class="seed"') == 2 * 3, "a dot for each seed below the interval of each mean"
    other = write_label_run(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"method": {"name": "mblm", "temperature": 2}}))
    differences = select_differences(write_page(tmp_path / "a", other))
    assert differences[-1].startswith("other/mblm − a/mblm, zero-shot mean: 0.0 accuracy, identical answers")


def test_contamination_says_what_was_checked_where_nothing_was_found(tmp_path):
    text = write_page(write_label_run(tmp_path))
    section = text[text.index('id="contamination"') : text.index('id="questions"')]
    assert "None of the evaluation examples" in section
    for kind in ("parallel id", "same paragraph", "near-duplicate"):
        assert kind in section


def test_languages_with_labels_are_named_where_systems_differ():
    stages = {name: {"seen": {"training": ["de", "en"]}} for name in ("ce", "skd")}
    stages |= {"zs": {"seen": {"training": []}}, "mt": {"seen": {"training": ["en"]}}}
    text = overview._list_training_languages(["zs", "ce", "skd", "mt"], stages)
    assert text == " Labels in training: de en; zs: no language; mt: en."


def test_names_from_files_are_never_markup_on_the_first_screen(tmp_path):
    names = ("<b onclick=alert(1)>", "'\"><img src=x>")
    write_run(tmp_path, names, compare=[":".join(reversed(names))])
    for number, name in enumerate(names, 1):
        rows = [
            row | {"set": "<i>", "language": row["language"]}
            for row in draw_labels({"en": 0.5, "de": 0.5, "sw": 0.3 * number})
        ]
        write_stage(tmp_path, number, name, {"eval": rows}, task="classify")
    text = write_page(tmp_path)
    page = Parser(text.partition("</head>")[2].partition("<script")[0])
    assert not page.select("img")
    assert not [attributes for _, attributes, _ in page.elements if "onclick" in attributes]
    assert any(names[1] in said for said in select_differences(text))


# --- 49 cells and seven controls

MEASURE = """<body style="margin:0"><script>
// Returns for each line but the first whether it begins with a word.
function findLineStarts(inner, text) {
  const words = new Set([...new Intl.Segmenter(text.lang, {granularity: "word"}).segment(text.textContent)].map(
    word => word.index));
  const walker = inner.createTreeWalker(text, NodeFilter.SHOW_TEXT), starts = [];
  let offset = 0, last = null;
  for (let node; (node = walker.nextNode()); offset += node.length) {
    for (let i = 0; i < node.length; i++) {
      const range = inner.createRange();
      range.setStart(node, i);
      range.setEnd(node, i + 1);
      const box = range.getBoundingClientRect();
      if (!box.width) continue;
      if (last !== null && box.top > last + 8) starts.push(words.has(offset + i));
      last = box.top;
    }
  }
  return starts;
}
async function measure(width, file) {
  const frame = document.createElement("iframe");
  Object.assign(frame, {src: file, width, height: 800});
  frame.style.border = 0;
  document.body.appendChild(frame);
  await new Promise(resolve => { frame.onload = resolve; });
  const inner = frame.contentDocument, tip = inner.getElementById("tip"), result = {width, places: {}, focused: []};
  for (const name of NAMES) {
    const box = inner.querySelector(name).getBoundingClientRect();
    result.places[name] = [box.left, box.top, box.right, box.bottom];
  }
  const note = () => {
    result.focused.push([inner.activeElement.getAttribute("aria-label"), tip.hidden ? "" : tip.textContent]);
  };
  inner.querySelector(".heat td[tabindex='0']").focus();
  note();
  for (const key of ["ArrowRight", "ArrowDown", "End", "ArrowRight", "Escape"]) {
    inner.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    note();
  }
  result.lines = [...inner.querySelectorAll(".card .text")].map(text => ({
    language: text.lang, direction: getComputedStyle(text).direction, starts: findLineStarts(inner, text),
  }));
  for (const part of inner.querySelectorAll("details")) part.open = true;
  result.needed = inner.documentElement.scrollWidth;
  const table = [...inner.querySelectorAll("main .scroll")].find(box => box.scrollWidth > box.clientWidth + 50);
  if (table) {
    const name = table.querySelector("tr:last-child th"), before = name.getBoundingClientRect().left;
    table.scrollLeft = 50;
    result.fixed = name.getBoundingClientRect().left === before;
  }
  return result;
}
(async () => {
  const out = document.createElement("pre"), results = [];
  for (const width of [390, 800, 1280, 1920]) results.push(await measure(width, "report.html"));
  results.push(await measure(A4, "print.html"));
  out.textContent = JSON.stringify(results);
  document.body.appendChild(out);
})();
</script>"""
A4 = 710  # pixels of its width, without margins
FIRST_SCREEN = (".forest", ".averages table", ".squares")


@pytest.fixture(scope="module")
def large_report(tmp_path_factory):
    """Writes the report of 49 cells and seven controls in two draws."""
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        use_few_resamples(patch)
        write_page(*(write_large_draw(folder / f"seed={draw}", draw) for draw in (1, 2)))
    return folder


@pytest.fixture(scope="module")
def measured(large_report, browser):
    """Opens that report in frames of three widths, and returns for each the places of its parts and what keys do."""
    frame = large_report / "frame.html"
    frame.write_text(MEASURE.replace("NAMES", json.dumps(FIRST_SCREEN)).replace("A4", str(A4)))
    text = (large_report / "report.html").read_text().replace("@media print", "@media all")
    (large_report / "print.html").write_text(re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text))
    printed = browser(frame, "--window-size=2000,900", "--virtual-time-budget=20000", "--dump-dom")
    return {each["width"]: each for each in json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", printed, re.S)[1]))}


def test_a_grid_of_49_cells_and_seven_controls_stays_far_below_five_megabytes(large_report):
    text = (large_report / "report.html").read_text()
    assert len(re.findall(r'<table class="heat"', text)) == 14 + 2
    assert len(text.encode()) < 1_500_000


def test_the_first_screen_has_forest_plot_means_and_all_maps(measured):
    for left, top, right, bottom in measured[1280]["places"].values():
        assert 0 <= left < right <= 1280
        assert 0 <= top < bottom <= 800


def test_arrow_keys_move_between_cells_and_show_their_details(measured):
    for each in measured.values():
        cells = [label.partition(": ")[0] for label, _ in each["focused"]]
        assert cells[0] == "zs, question ar, context ar"
        assert cells[1] == "zs, question ar, context de"
        assert cells[2] == "zs, question de, context de"
        assert cells[3:] == ["zs, question de, mean over contexts"] * 3, "nothing is to the right of the last cell"
        assert all(tip == label for label, tip in each["focused"][:-1])
        assert each["focused"][-1][1] == "", "the escape key hides the details"


def test_examples_run_right_to_left_in_arabic_and_break_between_words_in_thai(measured):
    by_language = {each["language"]: each for each in measured[390]["lines"]}
    assert {language: each["direction"] for language, each in by_language.items()} == {
        "ar": "rtl",
        "th": "ltr",
        "zh": "ltr",
    }
    assert all(len(each["starts"]) >= 2 for each in by_language.values()), "every text needs several lines"
    assert all(by_language["th"]["starts"])
    assert all(by_language["ar"]["starts"])


def test_on_paper_nothing_is_wider_than_a_page_of_a4(measured):
    assert measured[A4]["needed"] <= A4


@pytest.mark.parametrize("width", [390, 800, 1280, 1920])
def test_nothing_is_wider_than_the_window_even_if_all_is_unfolded(measured, width):
    assert measured[width]["needed"] <= width
    assert measured[width].get("fixed", True), "the first column of a wide table stays where it is"
    assert width > 800 or "fixed" in measured[width]
