# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes work directories as a run leaves them: a grid of questions, labelled texts, sentence pairs."""

from __future__ import annotations

import functools
import json
import pathlib
import random

from xlkd.metrics import statistics

CONTEXTS = {
    "en": "🍎 Anna went to the market on Monday and bought three apples. She paid in coins.",
    "de": "🍎 Anna ging am Montag auf den Markt und kaufte drei Äpfel. Sie zahlte mit Münzen.",
    "ar": "🍎 ذهبت آنا إلى السوق يوم الاثنين واشترت ثلاث تفاحات. دفعت نقدا.",
}
ANSWERS = {"en": "three apples", "de": "drei Äpfel", "ar": "ثلاث تفاحات"}
QUESTIONS = {"en": "What did Anna buy?", "de": "Was kaufte Anna?", "ar": "ماذا اشترت آنا؟"}
NOTHING = {"training": [], "selection": [], "teacher": []}


def use_few_resamples(monkeypatch, resamples: int = 20) -> None:
    """Computes intervals from few resamples, which are most of the time that a report takes."""
    monkeypatch.setattr(statistics, "RESAMPLES", resamples)
    for name in ("compare", "estimate"):
        monkeypatch.setattr(statistics, name, functools.partial(getattr(statistics, name), resamples=resamples))


def write_json(path: pathlib.Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_lines(path: pathlib.Path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values), encoding="utf-8")


def write_run(folder: pathlib.Path, stages, *, seed=0, compare=(), controls=(), **more) -> pathlib.Path:
    config = {"stages": list(stages), "controls": list(controls), "report": {"compare": list(compare)}, "seed": seed}
    write_json(folder / "config.json", config | {"method": {"name": "gxlt", "variant": "all"}} | more)
    environment = {"command": ["python", "-m", "xlkd.main"], "git": "abc", "git_changes": False, "devices": ["cpu:0"]}
    write_json(folder / "environment.json", environment)
    return folder


def write_stage(
    folder: pathlib.Path, number: int, name: str, by_set, *, seen=NOTHING, start="package:multilingual", **more
):
    """Writes a finished stage with its rows by evaluation set, and returns its folder."""
    folder_of_stage = folder / "stages" / f"{number:02d}-{name}"
    results = {"version": 1, "stage": name, "method": "gxlt", "task": "qa", "start": start, "steps": 10, "rows": 100}
    results |= {"lr": 1e-4, "seconds": 12.5, "parameters": 1000, "sets": {}}
    results["contamination"] = {"eval": {"flagged": 0, "rows": 1, "kinds": {}, "examples": []}}
    write_json(folder_of_stage / "stage.json", results | ({} if seen is None else {"seen": seen}) | more)
    for set, rows in by_set.items():
        write_lines(folder_of_stage / "rows" / f"{set}.jsonl", rows)
        for step, mean in ((0, 20.0), (5, 40.0), (10, 45.0)):
            cells = {"toy en-en": {"f1": mean, "n": 3}}
            write_json(
                folder_of_stage / "evaluation" / f"{step}-{set}.json",
                {"step": step, "main": "f1", "mean": mean, "cells": cells},
            )
    metrics = [
        {
            "step": s,
            "loss": 3 / s,
            "ce": 2 / s,
            "kl": 1 / s,
            "coefficient": 0.3 + 0.05 * s,
            "agreement": 0.9,
            "lr": 1e-4,
        }
        for s in range(1, 11)
    ]
    write_lines(folder_of_stage / "metrics.jsonl", metrics)
    (folder_of_stage / "done").touch()
    return folder_of_stage


def draw_questions(right: float, *, seed=0, groups=30, languages=("en", "de", "ar"), set="toy", tag=""):
    """Returns rows of a grid; each answer is right with probability `right`, and partly right otherwise.

    Where it is not, a later candidate is right or none of the first ten.
    """
    rng = random.Random(f"{seed} {right} {tag}")
    rows = []
    for group in range(groups):
        for q in languages:
            for c in languages:
                hit = rng.random() < right
                answer, start = ANSWERS[c], CONTEXTS[c].index(ANSWERS[c])
                prediction = answer if hit else CONTEXTS[c][:4]
                rows.append(
                    {
                        "key": f"{set}{group}{q}{c}",
                        "id": f"q{group}",
                        "group": f"g{group}",
                        "set": set,
                        "question_language": q,
                        "context_language": c,
                        "f1": 100.0 if hit else 25.0,
                        "em": 100.0 if hit else 0.0,
                        "prediction": prediction,
                        "start": start if hit else 0,
                        "end": start + len(answer) if hit else 4,
                        "rank": 1 if hit else (2 + group % 10) % 11,
                    }
                )
    return rows


def question_texts(rows, context=None):
    return [
        {key: row[key] for key in ("key", "id", "group", "set", "question_language", "context_language")}
        | {
            "question": QUESTIONS[row["question_language"]],
            "context": (context or CONTEXTS)[row["context_language"]],
            "answers": [
                {
                    "text": ANSWERS[row["context_language"]],
                    "start": (context or CONTEXTS)[row["context_language"]].index(ANSWERS[row["context_language"]]),
                }
            ],
        }
        for row in rows
    ]


def draw_labels(right, *, languages=("en", "de", "sw"), groups=30, seed=0):
    """Returns labelled rows; `right` is the accuracy to expect by language."""
    rng = random.Random(f"{seed} {right}")
    rows = []
    for group in range(groups):
        for language in languages:
            gold = ("entailment", "neutral", "contradiction")[group % 3]
            hit = rng.random() < right[language]
            rows.append(
                {
                    "key": f"{language}{group}",
                    "id": f"{group}",
                    "group": f"p{group // 3 if groups > 60 else group}",
                    "set": "xnli",
                    "language": language,
                    "gold": gold,
                    "prediction": gold if hit else "neutral" if gold != "neutral" else "entailment",
                    "accuracy": 100.0 * hit,
                }
            )
    return rows


def draw_retrieval(right, *, languages=("de", "ar"), groups=30, seed=0):
    rng = random.Random(f"{seed} {right}")
    return [
        {
            "key": f"{language}{group}",
            "id": f"{group}",
            "group": f"d{group}",
            "set": "ntrex",
            "source_language": "en",
            "target_language": language,
            "to_source": 100.0 * (rng.random() < right),
            "to_target": 100.0 * (rng.random() < right),
        }
        for group in range(groups)
        for language in languages
    ]


def write_grid_run(folder: pathlib.Path, *, seed=0, languages=("en", "de", "ar")) -> pathlib.Path:
    """Writes a run with English training, then cross-entropy and self-distillation from it."""
    write_run(folder, ("english", "ce", "skd"), seed=seed, compare=("ce:english", "skd:ce"), controls=("ce", "skd"))
    first = draw_questions(0.3, seed=seed, languages=languages)
    seen = {"training": ["en"], "selection": [], "teacher": []}
    seen_later = {"training": ["de", "en"], "selection": [], "teacher": ["en"]}
    contamination = {"eval": {"flagged": 30, "rows": len(first), "kinds": {"parallel id": 30}, "by_language": {"de": 30},
                    "examples": [{"kind": "parallel id", "id": "q1", "language": "de", "text": "…"}]}}  # fmt: skip
    ceilings = {"eval": {language: {"f1": 99.5, "em": 98.0} for language in languages}}
    write_stage(folder, 1, "english", {"eval": first}, seen=seen, rows=500)
    write_stage(folder, 2, "ce", {"eval": draw_questions(0.6, seed=seed, languages=languages)}, seen=seen_later, start="english",
          contamination=contamination, ceilings=ceilings)  # fmt: skip
    write_stage(folder, 3, "skd", {"eval": draw_questions(0.65, seed=seed, tag="skd", languages=languages)}, seen=seen_later,
          start="english", contamination=contamination, steps=12, ceilings=ceilings)  # fmt: skip
    write_lines(folder / "texts" / "eval.jsonl", question_texts(first))
    return folder


def write_label_run(folder: pathlib.Path, *, seed=0, groups=40) -> pathlib.Path:
    """Writes a run with the branches alone and one with all terms; en and de are supervised, sw is unseen."""
    write_run(folder, ("branches", "mblm"), seed=seed, compare=("mblm:branches",), controls=("branches", "mblm"))
    seen = {"training": ["de", "en"], "selection": ["en"], "teacher": ["de", "en"]}
    own = draw_labels({"en": 0.8, "de": 0.7, "sw": 0.4}, groups=groups)
    best = draw_labels({"en": 0.8, "de": 0.7, "sw": 0.9}, groups=groups)
    write_stage(folder, 1, "branches", {"eval": own}, seen=seen, task="classify")
    write_stage(folder, 2, "mblm", {"eval": best}, seen=seen, task="classify")
    texts = [
        {key: row[key] for key in ("key", "id", "group", "set", "language")}
        | {"text": f"A text in {row['language']}", "second": "Another", "label": row["gold"]}
        for row in own
    ]
    write_lines(folder / "texts" / "eval.jsonl", texts)
    return folder


def write_pair_run(folder: pathlib.Path, *, seed=0) -> pathlib.Path:
    """Writes a run that aligns a starting model, with the method's own pictures."""
    write_run(folder, ("start", "align"), seed=seed)
    write_stage(folder, 1, "start", {"retrieval": draw_retrieval(0.3)}, task="parallel", rows=0)
    here = write_stage(folder, 2, "align", {"retrieval": draw_retrieval(0.8)}, task="parallel", start="start", rows=900)
    rng = random.Random(seed)
    for name, wide in (("before", 2.0), ("after", 0.4)):
        points = [
            {"x": i % 5 + wide * rng.random(), "y": i // 5 + wide * rng.random(), "language": lang, "id": str(i)}
            for i in range(20)
            for lang in ("en", "de", "ar")
        ]
        write_json(
            here / "report" / f"{name}.json", {"kind": "picture", "title": f"sentence vectors {name}", "points": points}
        )
    return folder


def write_draw(folder: pathlib.Path, draw: int, *, right=(0.3, 0.5, 0.55, 0.6), **method) -> pathlib.Path:
    """Writes a draw of a study of four controls, which has its own training examples and its own questions."""
    stages, pairs = ("zs", "ce", "skd", "skd_map"), ("ce:zs", "skd:ce", "skd_map:ce", "skd_map:skd")
    study = {"compare": list(pairs), "primary": ["skd:ce", "skd_map:ce"], "judged_by": "toy/gxlt_off/f1"}
    data = {"train": f"xquad:data?draw={draw}&limit=40", "eval": f"mlqa:data?limit=25&draw={draw}"}
    start = f"runs/start{'' if draw % 2 else '-0123abcd'}/stages/01-english/export"
    more = {"report": study, "data": data, "start": start, "english": {"seed": draw % 2}}
    write_run(folder, stages, seed=draw, controls=stages, method={"name": "gxlt"} | method, **more)
    seen = {"training": ["en"], "selection": [], "teacher": []}
    for number, (name, share) in enumerate(zip(stages, right, strict=True), 1):
        rows = [
            row | {"key": f"{draw}{row['key']}", "id": f"{draw}{row['id']}", "group": f"{draw}{row['group']}"}
            for row in draw_questions(share, seed=draw, languages=("en", "de"), tag=name, groups=25)
        ]
        contamination = {"eval": {"flagged": int(draw == 2), "rows": 100, "kinds": {"near-duplicate": int(draw == 2)}}}
        contamination["eval"]["keys"] = {"near-duplicate": [rows[0]["key"]] if draw == 2 else []}
        write_stage(folder, number, name, {"eval": rows}, seen=seen, contamination=contamination)
    return folder
