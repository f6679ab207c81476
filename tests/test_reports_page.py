# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The report page: offline, small, escaped, right to left where needed; rendered in a browser if one is installed."""

from __future__ import annotations

import base64
import hashlib
import html
import html.parser
import json
import pathlib
import re
import struct
import subprocess
import sys
import zlib

import pytest
from reports_toys import (
    ANSWERS,
    CONTEXTS,
    draw_questions,
    question_texts,
    write_grid_run,
    write_label_run,
    write_lines,
    write_pair_run,
    write_run,
    write_stage,
)

from xlkd import reports

HOSTILE = "</script><script>document.title='taken'</script><!-- <img src=x onerror=alert(1)> & \"' \u2028"


def write_page(folder: pathlib.Path) -> str:
    reports.write(folder, lambda line: None)
    return (folder / "report.html").read_text(encoding="utf-8")


def parse_embedded_data(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def make_hostile_run(folder: pathlib.Path) -> pathlib.Path:
    """Writes a run in which all text from data is hostile markup."""
    write_run(folder, ("one",))
    rows = [row | {"id": HOSTILE, "prediction": HOSTILE} for row in draw_questions(0.5, languages=("en", "ar"))]
    overlap = {"flagged": 1, "rows": 9, "kinds": {HOSTILE: 1}, "examples": [{"kind": "x", "id": "1", "text": HOSTILE}]}
    stage_folder = write_stage(folder, 1, "one", {"eval": rows}, contamination={"eval": overlap}, start=HOSTILE)
    picture = {"kind": "picture", "title": HOSTILE, "points": [{"x": 0, "y": 0, "language": HOSTILE, "id": HOSTILE}]}
    write_lines(stage_folder / "report" / "picture.json", [picture])
    texts = question_texts(rows, {language: HOSTILE + text for language, text in CONTEXTS.items()})
    write_lines(folder / "texts" / "eval.jsonl", [text | {"question": HOSTILE} for text in texts])
    return folder


class Tags(html.parser.HTMLParser):
    """Collects the elements that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def test_text_from_data_is_never_markup(tmp_path):
    text = write_page(make_hostile_run(tmp_path))
    tags = Tags(text).elements
    assert [tag for tag, _ in tags].count("script") == 2
    assert "img" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    assert "<!--" not in text
    assert html.escape(HOSTILE.split("\u2028")[0].strip()) in text
    embedded_set = parse_embedded_data(text)["sets"][0]
    assert embedded_set["rows"][0]["q"] == HOSTILE
    assert embedded_set["contexts"][0].startswith(HOSTILE)


def test_the_page_loads_nothing_from_the_network(tmp_path):
    text = write_page(write_grid_run(tmp_path))
    for tag, attributes in Tags(text).elements:
        assert tag not in {"link", "img", "iframe", "base", "object"}
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "http" not in text.replace("http-equiv", "")


def test_the_content_policy_allows_only_the_pages_own_style_and_script(tmp_path):
    text = write_page(write_grid_run(tmp_path))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none';")
    for tag in ("style", "script"):
        own = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_contexts_are_embedded_once_and_omitted_rows_are_counted(tmp_path):
    embedded_set = parse_embedded_data(write_page(write_grid_run(tmp_path)))["sets"][0]
    assert sorted(embedded_set["contexts"]) == sorted(CONTEXTS.values())
    assert embedded_set["left"] == {"shown": 270, "sampled": 270, "all": 270}
    assert embedded_set["first"] == [embedded_set["systems"].index("skd"), embedded_set["systems"].index("english")]


def test_a_page_has_at_most_five_megabytes_for_any_data(tmp_path):
    write_run(tmp_path, ("one",))
    rows = draw_questions(0.5, groups=40, languages=("en", "de"))
    write_stage(tmp_path, 1, "one", {"eval": rows})
    texts = [row | {"context": f"{i}" + "<" * 40_000} for i, row in enumerate(question_texts(rows))]
    write_lines(tmp_path / "texts" / "eval.jsonl", texts)
    text = write_page(tmp_path)
    assert 1_000_000 < len(text.encode()) <= 5_000_000
    left = parse_embedded_data(text)["sets"][0]["left"]
    assert 0 < left["shown"] < left["sampled"] == 160


def test_a_section_that_is_too_large_is_left_out_with_a_note(tmp_path):
    folder = write_pair_run(tmp_path)
    points = [{"x": 0.0, "y": 0.0, "language": "de", "id": "1"}, {"x": 1.0, "y": 1.0, "language": "de", "id": "2"}]
    picture = {"kind": "picture", "title": "x" * 6_000_000, "points": points}
    write_lines(folder / "stages" / "02-align" / "report" / "long.json", [picture])
    text = write_page(folder)
    assert len(text.encode()) <= 5_000_000
    assert "Left out: too large for one page" in text
    assert "macro mean" in text


def test_every_stage_has_curves_and_pictures_share_their_axes(tmp_path):
    text = write_page(write_pair_run(tmp_path))
    for name in ("coefficient", "agreement", "loss, ce, kl", "sentence vectors before", "sentence vectors after"):
        assert name in text
    assert text.index("sentence vectors before") < text.index("sentence vectors after")
    figure = text[text.index("sentence vectors after") :]
    xs = [float(x) for x in re.findall(r'class="dot s\d+" cx="([\d.]+)"', figure[: figure.index("</svg>")])]
    assert max(xs) < 330  # The picture before training reaches further, and both share their axes.


def test_missing_and_non_finite_values_do_not_break_a_curve(tmp_path):
    folder = write_grid_run(tmp_path)
    path = folder / "stages" / "02-ce" / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n{"step": 2}\n{"step": 3, "loss": 0.0, "note": "text"}\n')
    assert "nan" not in write_page(folder).lower().split("<h2")[4]


def test_unequal_budgets_and_verdicts_are_marked(tmp_path):
    text = write_page(write_grid_run(tmp_path))
    assert "≠" in text
    assert 'class="up3"' in text
    assert "no significant difference" in text


def test_the_first_ten_answers_are_in_a_folded_table(tmp_path):
    text = write_page(write_grid_run(tmp_path))
    (table,) = re.findall(r"<details><summary>Exactly right among the first answers.*?</details>", text)
    rows = re.findall(r"<tr>.*?</tr>", table)
    assert re.findall(r'<th scope="col">(\d+)</th>', rows[0]) == [str(k) for k in range(1, 11)]
    assert [len(re.findall("<td>", row)) for row in rows[1:]] == [10] * 9, "three systems, three means"


def test_the_command_writes_to_the_given_paths_and_refuses_in_one_line(tmp_path):
    folder = write_grid_run(tmp_path / "run")
    out, data = tmp_path / "page.html", tmp_path / "numbers.json"

    def report(*arguments: str):
        command = [sys.executable, "-m", "xlkd.report", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    process = report(str(folder), f"--out={out}", f"--json={data}")
    assert (process.returncode, process.stderr) == (0, "")
    assert out.exists()
    assert json.loads(data.read_text())["version"] == 1
    assert not (folder / "report.html").exists()
    for arguments, message in (
        ((), "no work directory"),
        (("nowhere",), "no such folder"),
        ((str(folder), str(folder)), "twice"),
        ((str(folder), "--ouT=x"), "unknown flag"),
    ):
        refused = report(*arguments)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_reports_do_not_import_jax():
    code = "import sys, xlkd.report; from xlkd.reports import page, results; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# --- in a browser


def measure_drawn_share(png: bytes) -> float:
    """Returns the share of bytes that differ from their neighbours, which is almost zero on a blank page."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    offset, parts = 8, []
    while offset < len(png):
        size, kind = struct.unpack(">I4s", png[offset : offset + 8])
        parts.append(png[offset + 8 : offset + 8 + size] if kind == b"IDAT" else b"")
        offset += size + 12
    raw = zlib.decompress(b"".join(parts))
    return 1 - raw.count(0) / len(raw)


@pytest.mark.parametrize(("build", "width"), [(write_grid_run, 1300), (write_label_run, 390)])
def test_a_screenshot_is_not_blank(tmp_path, browser, build, width):
    write_page(build(tmp_path))
    frame = tmp_path / "frame.html"  # Browsers open no window of 390 pixels, but a frame can be that narrow.
    frame.write_text(f'<body style="margin:0"><iframe src="report.html" width={width} height=1500 style="border:0">')
    shot = tmp_path / "shot.png"
    browser(frame, f"--window-size={width},1500", f"--screenshot={shot}")
    assert 0.02 < measure_drawn_share(shot.read_bytes()) < 0.6


def test_the_explorer_marks_answers_and_runs_no_markup_from_data(tmp_path, browser):
    write_page(write_grid_run(tmp_path / "grid"))
    tree = browser(tmp_path / "grid" / "report.html", "--dump-dom")
    gold = re.findall(r'<p class="text" lang="(\w+)" dir="(\w+)">(.*?)</p>', tree)
    assert {lang: dir for lang, dir, _ in gold} == {"en": "auto", "de": "auto", "ar": "rtl"}
    for language, _, text in gold:
        marked = "".join(
            part for names, part in re.findall(r'<span class="([^"]+)">(.*?)</span>', text) if "gold" in names
        )
        assert marked == ANSWERS[language]  # The context has a character outside the first plane before it.
    write_page(make_hostile_run(tmp_path / "hostile"))
    tree = browser(tmp_path / "hostile" / "report.html", "--dump-dom")
    assert "<title>Report: hostile</title>" in tree
    assert "alert(1)&gt;" in tree
    assert "<img" not in tree.split('<script type="application/json"')[0]
