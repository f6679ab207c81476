# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Changes the source in one place at a time and reports the changes that no test notices.

    python tests/mutate.py --changes=12 --minutes=60 --out=survivors.jsonl
    python tests/mutate.py xlkd/train/step.py=test_step,test_golden_steps::test_golden_step[mmkd] xlkd/evaluation/selection.py=test_selection

Each change is made in a copy of the tree, where the tests named for its file run until one fails. A line of the output
says what was changed and how it ended: failed (a test noticed), survived, or slow (stopped; counts as noticed). A
survivor calls for a test, or is equivalent to the original. The same seed draws the same changes.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = {
    "xlkd/train/step.py": "test_step,test_golden_steps::test_golden_step[mmkd]",
    "xlkd/train/targets/__init__.py": "test_cached",
    "xlkd/train/targets/audit.py": "test_cached",
    "xlkd/train/targets/cached.py": "test_cached",
    "xlkd/train/targets/live.py": "test_cached",
    "xlkd/train/targets/classifiers.py": "test_classifiers",
    "xlkd/methods/__init__.py": "test_step,test_finetune",
    "xlkd/methods/finetune.py": "test_finetune,test_golden_steps",
    "xlkd/methods/pretrain.py": "test_pretrain,test_golden_steps::test_golden_step[pretrain],test_loop",
    "xlkd/methods/gxlt.py": "test_golden_steps::test_golden_step[gxlt],test_gxlt",
    "xlkd/methods/mblm.py": "test_golden_steps::test_golden_step[mblm],test_mblm",
    "xlkd/methods/mmkd.py": "test_golden_steps::test_golden_step[mmkd],test_mmkd",
    "xlkd/evaluation/evaluator.py": "test_evaluator",
    "xlkd/evaluation/provenance.py": "test_provenance,test_selection",
    "xlkd/evaluation/reference.py": "test_reference",
    "xlkd/evaluation/selection.py": "test_selection",
    "xlkd/evaluation/sets.py": "test_gxlt_run",
    "xlkd/spec/__init__.py": "test_settings",
    "xlkd/spec/reading.py": "test_settings",
    "xlkd/spec/stage.py": "test_settings",
    "xlkd/spec/optim.py": "test_settings",
    "xlkd/spec/tasks.py": "test_settings",
    "xlkd/spec/gxlt.py": "test_settings,test_gxlt",
    "xlkd/spec/mblm.py": "test_settings,test_mblm",
    "xlkd/spec/mmkd.py": "test_settings,test_mmkd",
}

Change = tuple[str, Callable[[], ast.AST]]  # its description, and a function that makes the new node

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
}
SKIPPED = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Assert)  # other tests check the wording


def list_changes(node: ast.AST) -> Iterator[Change]:
    """Yields the changes of one node."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        other = COMPARISONS[type(node.ops[0])]
        yield f"comparison becomes {other.__name__}", lambda: replace(node, ops=[other(), *node.ops[1:]])
    if isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS and not is_path(node):
            other_operator = OPERATORS[type(node.op)]
            yield f"operator becomes {other_operator.__name__}", lambda: replace(node, op=other_operator())
        if isinstance(node.op, ast.Add | ast.BitOr):
            yield "right side dropped", lambda: node.left
    if isinstance(node, ast.BoolOp):
        yield "and, or exchanged", lambda: replace(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        yield "last condition dropped", lambda: replace(node, values=node.values[:-1])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "not or minus dropped", lambda: node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} becomes {not node.value}", lambda: ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        number = {0: 1, 1: 0}.get(node.value, node.value + 1)
        yield f"{node.value} becomes {number}", lambda: ast.Constant(number)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("stop_gradient"):
        yield "stop_gradient dropped", lambda: node.args[0]
    if isinstance(node, ast.IfExp | ast.If):
        yield "condition negated", lambda: replace(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict) and node.value.keys:
        short = ast.Dict(node.value.keys[:-1], node.value.values[:-1])
        yield "last entry of what is returned dropped", lambda: replace(node, value=short)


def is_path(node: ast.BinOp) -> bool:
    """Returns whether a division joins a path: it has a string on its right."""
    return isinstance(node.op, ast.Div) and ast.unparse(node.right).startswith(("'", '"', "f'", 'f"'))


def replace(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


class Mutator(ast.NodeTransformer):
    """Counts the possible changes of a module, and applies the one with a given number."""

    def __init__(self, chosen: int | None = None) -> None:
        self.chosen, self.count, self.description = chosen, 0, ""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, SKIPPED) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return node
        for name, make in list_changes(node):  # outermost first; nested nodes are counted after it
            self.count += 1
            if self.count - 1 == self.chosen:
                self.description = f"line {node.lineno}: {name}: {ast.unparse(node).splitlines()[0][:100]}"
                return ast.copy_location(make(), node)
        return self.generic_visit(node)


def strip_annotations(tree: ast.AST) -> ast.AST:
    """Removes annotations, whose unions and literals are not operators and constants of the program."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Name("object", ast.Load())
    return tree


def mutate(source: str, number: int | None = None) -> tuple[str, str, int]:
    """Returns the source with the change of that number, what was changed, and how many changes there are."""
    mutator = Mutator(number)
    tree = ast.fix_missing_locations(mutator.visit(strip_annotations(ast.parse(source))))
    return ast.unparse(tree), mutator.description, mutator.count


def copy_tree(target: pathlib.Path) -> None:
    """Copies the files that git tracks or does not ignore."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_tests(tree: pathlib.Path, tests: list[str], timeout: float | None = None) -> str:
    """Runs tests in a copy of the tree until one fails; returns passed, failed or slow."""
    files = ["::".join([f"tests/{name.split('::')[0]}.py", *name.split("::")[1:]]) for name in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--durations=0", *files]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return "failed" if process.wait(timeout) else "passed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # with the processes that the tests have started
        process.wait()
        return "slow"


def check_import(tree: pathlib.Path) -> None:
    """Stops unless the tests would import the package of the copy."""
    command = [sys.executable, "-c", "import xlkd; print(xlkd.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    path = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True).stdout
    if not pathlib.Path(path.strip()).is_relative_to(tree):
        sys.exit(f"error: tests in {tree} would import {path.strip()}; run from an environment with xlkd as editable")


def draw_changes(files: dict[str, list[str]], changes: int, seed: int) -> Iterator[tuple[str, int]]:
    """Yields (file, number of the change), one of each file in turn, so that a run cut short has some of every file."""
    drawn = {}
    for file in files:
        count = mutate((ROOT / file).read_text(encoding="utf-8"))[2]
        drawn[file] = random.Random(f"{seed} {file}").sample(range(count), min(changes, count))
    for turn in range(changes):
        yield from ((file, numbers[turn]) for file, numbers in drawn.items() if turn < len(numbers))


def run(files: dict[str, list[str]], *, changes: int, seed: int, minutes: float, out: pathlib.Path) -> None:
    """Makes the changes one after the other, and writes a line of JSON for each."""
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="xlkd-mutate-") as folder, out.open("a", encoding="utf-8") as lines:
        tree = pathlib.Path(folder)
        copy_tree(tree)
        check_import(tree)
        limits: dict[str, float] = {}
        for file, number in draw_changes(files, changes, seed):
            if time.monotonic() > end:
                break
            if file not in limits:
                start = time.monotonic()
                if run_tests(tree, files[file]) != "passed":
                    sys.exit(f"error: the tests of {file} fail without a change: {', '.join(files[file])}")
                limits[file] = 120 + 4 * (time.monotonic() - start)
            original = (tree / file).read_text(encoding="utf-8")
            source, description, _ = mutate(original, number)
            (tree / file).write_text(source, encoding="utf-8")
            result = run_tests(tree, files[file], limits[file])
            (tree / file).write_text(original, encoding="utf-8")
            result = "survived" if result == "passed" else result
            print(
                json.dumps({"file": file, "number": number, "change": description, "result": result}),
                file=lines,
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="FILE=TEST,TEST; without any the table at the head of this program")
    parser.add_argument("--changes", type=int, default=12, help="of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="no change is begun after them")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("mutations.jsonl"))
    flags = parser.parse_args()
    table = dict(entry.split("=") for entry in flags.files) or TESTS
    files = {file: tests.split(",") for file, tests in table.items()}
    run(files, changes=flags.changes, seed=flags.seed, minutes=flags.minutes, out=flags.out)


if __name__ == "__main__":
    main()
