# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `predict`: JSON lines in, answers out in the same order, bad lines named by number."""

import io
import json
import sys

import pytest
from toy_models import DATA, RECORD, run_command, save_span_model

from xlkd import predict
from xlkd.data import sources
from xlkd.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_span_model(tmp_path_factory.mktemp("predict"), RECORD)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, model):
    monkeypatch.setenv("XLKD_CACHE", str(model.parent / "cache"))


@pytest.fixture
def ask(model, monkeypatch, capsys):
    """Returns a function that runs the command on input lines and returns the objects that it wrote."""

    def run_predict(lines, *flags):
        data = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        predict.main([f"--model={model}", *flags])
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run_predict


def make_questions(count=11) -> list[str]:
    rows = list(sources.read(DATA, "qa"))[:count]
    return [json.dumps({"id": row.id, "question": row.question, "context": row.context, "set": 1}) for row in rows]


def test_answers_are_spans_in_the_order_of_the_questions(ask):
    lines = make_questions()
    answers = ask(lines, "--n_best=3")
    assert len(answers) == len(lines)
    for line, answer in zip(map(json.loads, lines), answers, strict=True):
        assert answer["id"] == line["id"]
        assert line["context"][answer["start"] : answer["end"]] == answer["answer"] != ""
        assert len(answer["n_best"]) == 3
        assert answer["n_best"][0] == {
            name: answer[key] for name, key in (("text", "answer"), *((k, k) for k in ("probability", "start", "end")))
        }
        probabilities = [candidate["probability"] for candidate in answer["n_best"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-9


def test_answers_depend_on_neither_batch_size_nor_n_best(ask):
    lines = make_questions()
    expected = ask(lines, "--n_best=20")
    for flags in (("--batch=3", "--n_best=20"), ("--n_best=1",)):
        for a, b in zip(ask(lines, *flags), expected, strict=True):
            assert (a["id"], a["answer"], a["start"]) == (b["id"], b["answer"], b["start"])
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)
            assert len(a["n_best"]) <= len(b["n_best"])


def test_a_question_without_an_id_has_the_number_of_its_line(ask):
    line = '{"question": "who?", "context": "It was Anna."}'
    assert [answer["id"] for answer in ask(["", line, " ", '{"id": null, ' + line[1:], line])] == [2, None, 5]
    assert ask(b"\xef\xbb\xbf" + line.encode())[0]["id"] == 1
    assert ask([]) == []


BAD = {
    "broken": (b'{"question": ', "broken JSON"),
    "a list": (b"[1]", "not a JSON object"),
    "no context": (b'{"question": "who?"}', "no context"),
    "an empty question": (b'{"question": " ", "context": "c"}', "empty question"),
    "a number": (b'{"question": "who?", "context": 3}', "context is not a string"),
    "an id that is no JSON": (b'{"id": NaN, "question": "who?", "context": "c"}', "broken JSON"),
    "a deep id": (b'{"id": ' + b"[" * 9999 + b"]" * 9999 + b', "question": "q", "context": "c"}', "broken JSON"),
    "latin 1": (b'{"question": "\xfcber?", "context": "c"}', "not UTF-8"),
    "half a surrogate": (b'{"question": "\\ud83d", "context": "c"}', "question contains half of a surrogate"),
}


@pytest.mark.parametrize(("line", "message"), BAD.values(), ids=BAD)
def test_a_bad_line_is_named_after_the_answers_before_it(ask, capsys, line, message):
    good = make_questions(2)
    data = b"\n".join([good[0].encode(), line, good[1].encode()])
    with pytest.raises(UserError, match=f"standard input, line 2: {message}.* set --on_bad_row=skip$"):
        ask(data)
    assert [json.loads(out)["id"] for out in capsys.readouterr().out.splitlines()] == [json.loads(good[0])["id"]]


def test_bad_lines_can_be_skipped(model, monkeypatch, capsys):
    good = make_questions(2)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join([good[0], "x", good[1]]).encode())))
    predict.main([f"--model={model}", "--on_bad_row=skip"])
    written = capsys.readouterr()
    assert len(written.out.splitlines()) == 2
    assert written.err.startswith("left out: standard input, line 2: broken JSON")


def test_each_batch_is_written_before_the_next_is_read(model):
    """Input is streamed: the second batch is read only after the first is written."""
    import subprocess

    command = [sys.executable, "-m", "xlkd.predict", f"--model={model}", "--batch=1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in make_questions(2):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == json.loads(line)["id"]
    process.stdin.close()
    assert process.wait() == 0


def test_a_line_without_a_language_has_that_of_the_command():
    lines = [b'{"text": "a", "language": null}', b'{"text": "b"}', b'{"text": "c", "language": "fr"}']
    inputs = predict._read_inputs(lines, None, predict._parse_text, {"language": "de"})
    assert [row.language for row in inputs] == ["de", "de", "fr"]


def test_one_question_can_be_asked_on_the_command_line(model):
    flags = (f"--model={model}", "--question", "who?", "--context=It was Anna who went.")
    process = run_command("predict", *flags, cache=model.parent / "cache")
    assert (process.returncode, process.stderr) == (0, "")
    assert json.loads(process.stdout)["answer"] in "It was Anna who went."


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no --model"),
        (["--model=a", "--question=b"], "belong together"),
        (["--model=a", "--second=b"], "--second without --text"),
        (["--model=a", "--n_best=0"], "--n_best=0"),
        (["--model=a", "--contxt=b"], "did you mean --context"),
        (["--model=a", "--on_bad_row=x"], "on_bad_row=x"),
        (["--model=a", "--question=b", "--context= "], "empty context"),
    ],
)
def test_bad_flags_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        predict.main(flags)
