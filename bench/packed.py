# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a machine without a network needs, in one folder: packed here by `pack`, set up there by `set_up`.

The folder has wheels, their requirements, and one archive of weights and data. On the machine the wheels that are
missing or too old there go into an environment of their own, which sees all packages of the machine and changes none.
"""

from __future__ import annotations

import configparser
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT))  # on the machine xlkd is not installed

from xlkd import files  # noqa: E402
from xlkd.errors import UserError  # noqa: E402

LIMIT = 64 * 2**20  # bytes of the folder
REQUIREMENTS, ARCHIVE, READY = "requirements.txt", "data.tar.xz", "ready"
WEIGHTS = "model.safetensors"
SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# Not needed to train on files, as here: sources tfds: and hf:
LEFT_OUT = ("jax", "tensorflow-datasets", "array-record", "importlib-resources", "pyarrow")
ON_MACHINE = ("jax", "jaxlib", "numpy", "scipy", "ml-dtypes", "opt-einsum")  # JAX itself and what it needs
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LANGUAGES = ("en", "es", "de", "ar", "hi", "vi", "zh")  # the seven of the paper
SQUAD, XQUAD, MLQA = 10_020, 240, 25  # questions of English; of each language; of each of 49 cells, to test


def pack(out: pathlib.Path, model: pathlib.Path, data: pathlib.Path, python: str, on_machine: Sequence[str]) -> int:
    """Packs everything into a folder, and returns its bytes."""
    files.check_folder(out)
    with files.replace_folder(out) as draft:
        requirements = read_requirements(ROOT / "setup.cfg")
        (draft / REQUIREMENTS).write_text("".join(f"{line}\n" for line in requirements))
        download_wheels(draft, requirements, python, (*ON_MACHINE, *on_machine))
        with tempfile.TemporaryDirectory() as folder:
            pack_model(model, pathlib.Path(folder, "model"))
            pack_data(data, pathlib.Path(folder, "data"))
            shutil.make_archive(str(draft / "data"), "xztar", folder)
        size = sum(path.stat().st_size for path in draft.iterdir())
        if size > LIMIT:
            remedy = "name packages that the machine has anyway with --has"
            raise UserError(f"{size:,} bytes are more than {LIMIT:,}", str(out), remedy)
    return size


def read_requirements(setup: pathlib.Path) -> list[str]:
    """Returns what the package requires, without what training on files does not need."""
    parser = configparser.ConfigParser()
    parser.read(setup, encoding="utf-8")
    lines = [line.strip() for line in parser["options"]["install_requires"].splitlines()]
    return [line for line in lines if line and line[0] != "#" and normalise_name(line) not in LEFT_OUT]


def normalise_name(text: str) -> str:
    """Returns the normalised name of the package that a requirement begins with."""
    name = re.match(r"[\w.-]*", text, re.ASCII)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def download_wheels(folder: pathlib.Path, requirements: Iterable[str], python: str, on_machine: Iterable[str]) -> None:
    """Downloads wheels for a version of Python on Linux, and deletes those of packages that the machine has."""
    platforms = [flag for platform in PLATFORMS for flag in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--python-version", python, "--implementation", "cp", *platforms, *requirements]
    if subprocess.run(command, check=False).returncode:
        raise UserError("pip could not download the wheels", str(folder), "see its message above")
    for wheel in folder.glob("*.whl"):
        if is_on_machine(wheel.name, on_machine):
            wheel.unlink()


def is_on_machine(wheel: str, on_machine: Iterable[str]) -> bool:
    """Says whether a wheel is of one of these packages."""
    return normalise_name(wheel.partition("-")[0]) in set(map(normalise_name, on_machine))


def pack_model(model: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the files of a model, its weights in 4 bits where they are on such a grid."""
    import grid
    import numpy as np
    from safetensors.numpy import load_file

    out.mkdir()
    for name in SMALL_FILES:
        if (model / name).exists():
            shutil.copy(model / name, out / name)
    np.savez(out / "weights.npz", **grid.encode(load_file(model / WEIGHTS)))


def pack_data(data: pathlib.Path, out: pathlib.Path) -> None:
    """Writes SQuAD's training questions, and the drawn questions of XQuAD and MLQA."""
    for name in ("squad_en", "xquad", "mlqa_dev"):
        (out / name).mkdir(parents=True)
    shutil.copy(data / "squad_en" / "train.json", out / "squad_en")
    ids = draw_ids(_read(data / "xquad" / "xquad.en.json"), XQUAD, seed="xquad")
    for language in LANGUAGES:
        name = f"xquad.{language}.json"
        files.write_json(out / "xquad" / name, select_questions(_read(data / "xquad" / name), ids))
    for path in sorted((data / "mlqa_dev").glob("dev-context-*-question-*.json")):
        document = _read(path)
        ids = draw_ids(document, MLQA, seed=path.name)
        files.write_json(out / "mlqa_dev" / path.name, select_questions(document, ids))


def draw_ids(document: Any, count: int, seed: str) -> list[str]:
    """Draws questions of a file in SQuAD's format; all of them where there are no more."""
    ids = sorted(question["id"] for _, _, question in _iterate_questions(document))
    return random.Random(seed).sample(ids, min(count, len(ids)))


def select_questions(document: Any, ids: Sequence[str]) -> Any:
    """Returns a document with these questions in this order, so that its first ones are a sample too."""
    by_id = {question["id"]: (title, context, question) for title, context, question in _iterate_questions(document)}
    chosen = [by_id[name] for name in ids]
    articles = [{"title": t, "paragraphs": [{"context": context, "qas": [q]}]} for t, context, q in chosen]
    return {"version": document.get("version", ""), "data": articles}


def _iterate_questions(document: Any) -> Iterable[tuple[str, str, Any]]:
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield article.get("title", ""), paragraph["context"], question


def _read(path: pathlib.Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def get_python(work: pathlib.Path) -> pathlib.Path:
    """Returns the interpreter of the environment that `set_up` makes."""
    return work / "venv" / "bin" / "python"


def set_up(folder: pathlib.Path, work: pathlib.Path) -> None:
    """Makes the environment, the package and the model on the machine; a second call makes them anew."""
    for name in ("venv", "model", "data"):
        shutil.rmtree(work / name, ignore_errors=True)
    install_missing(folder, work)
    shutil.unpack_archive(folder / ARCHIVE, work, filter="data")
    # This interpreter may not have them
    unpack = "import sys, packed; packed.write_weights(packed.pathlib.Path(sys.argv[1]))"
    subprocess.run([get_python(work), "-c", unpack, work / "model"], check=True, cwd=pathlib.Path(__file__).parent)
    (work / READY).touch()


def install_missing(folder: pathlib.Path, work: pathlib.Path) -> None:
    """Makes an environment that sees the machine's packages, and installs those that are missing or too old there."""
    venv, python = work / "venv", get_python(work)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)  # Debian's may lack ensurepip
    site = next(venv.glob("lib/python*/site-packages"))
    places = [path for path in sys.path if pathlib.Path(path).name in ("site-packages", "dist-packages")]
    (site / "machine.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in places))
    link_package(site)
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-compile", "--no-cache-dir"]
    resolved = [*install, "--find-links", folder, "--requirement", folder / REQUIREMENTS]
    if subprocess.run(resolved, check=False).returncode:
        print("not resolved with the machine's packages: all packed wheels are installed", flush=True)
        subprocess.run([*install, "--no-deps", *sorted(folder.glob("*.whl"))], check=True)


def link_package(site: pathlib.Path) -> None:
    """Links the working tree's package into an environment, with its configs as a subpackage."""
    package = site / "xlkd"
    package.mkdir()
    for path in (ROOT / "xlkd").iterdir():
        (package / path.name).symlink_to(path)
    (package / "configs").symlink_to(ROOT / "configs")


def write_weights(model: pathlib.Path) -> None:
    """Writes the weights of an unpacked model as safetensors."""
    import grid
    import numpy as np
    from safetensors.numpy import save_file

    with np.load(model / "weights.npz") as arrays:
        save_file(grid.decode(arrays), model / WEIGHTS, {"format": "pt"})


def main(arguments: list[str]) -> None:
    """Sets up the machine: the first part of bench/accelerator.py, as a process of its own."""
    folder, work = map(pathlib.Path, arguments)
    set_up(folder.resolve(), work.resolve())


if __name__ == "__main__":
    main(sys.argv[1:])
