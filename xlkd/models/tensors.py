# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of safetensors files by simplified name, and refuses those that are not what they seem."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from xlkd.errors import UserError
from xlkd.models.families import find_form, list_families
from xlkd.models.family import Architecture

if TYPE_CHECKING:
    from safetensors import safe_open

_ADAPTER = re.compile(
    r"(^|[._/])(lora|adapters?|base_layer|base_model|modules_to_save|ia3|hada|lok?r|b?oft|vera|prompt|prefix)([._]|$)"
)


class Tensors:
    """The tensors of files, read on demand, by the names that `simplify_name` makes of theirs."""

    def __init__(self, files: Iterable[pathlib.Path], simplify_name: Callable[[str], str] = str) -> None:
        self._files: dict[pathlib.Path, safe_open] = {}
        self._places: dict[str, tuple[pathlib.Path, str]] = {}
        for file in files:
            self._files[file] = open_weights(file)
            for name in self._files[file].keys():  # noqa: SIM118 (not a dict)
                other_file, other = self._places.setdefault(simplify_name(name), (file, name))
                if (other_file, other) != (file, name):
                    what = f"tensors {other} and {name} are the same part of the model"
                    raise UserError(what, str(file), "keep the one that is meant, and save the weights again")

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads a tensor, which must be finite in float32."""
        file, name = self._places[name]
        try:
            value = self._files[file].get_tensor(name)
        except Exception as error:  # a type that numpy does not have; the library raises various errors
            raise UserError(f"tensor {name} cannot be read ({error})", str(file), "copy the file again") from error
        if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            raise UserError(f"tensor {name} is {value.dtype}", str(file), "use float32, float16 or bfloat16 weights")
        return convert_finite(value, name, str(file))

    def count_rows(self, name: str) -> int:
        """Returns the length of a tensor's first axis; 0 where it is absent."""
        if name not in self:
            return 0
        file, name = self._places[name]
        return next(iter(self._files[file].get_slice(name).get_shape()), 0)

    def find_file(self, name: str) -> str:
        """Returns the file that contains a tensor."""
        return str(self._places[name][0])


def open_weights(file: pathlib.Path) -> safe_open:
    """Opens a safetensors file, whose tensors are read on demand."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(f"unreadable weights ({error})", str(file), "copy or download the file again") from error


def convert_finite(value: np.ndarray, name: str, where: str) -> np.ndarray:
    """Converts a tensor to float32; refuses one with values that are not finite there."""
    with np.errstate(over="ignore"):  # float64 beyond the range of float32 is refused below
        value = np.asarray(value, np.float32)
    if value.size and not (np.isfinite(value.min()) and np.isfinite(value.max())):  # NaN is both least and largest
        raise UserError(
            f"tensor {name} has {np.sum(~np.isfinite(value))} values that are NaN or infinite",
            where,
            "use weights from before the training diverged, or copy the file again",
        )
    return value


def check_adapters(names: Iterable[str], folder: pathlib.Path) -> None:
    """Refuses weights beside which an adapter changes what the model computes."""
    marked = next((name for name in names if _ADAPTER.search(name)), None)
    if marked or (folder / "adapter_config.json").exists():
        raise UserError(
            f"{marked or 'adapter_config.json'} is part of an adapter, without which the weights are another model",
            str(folder),
            "merge the adapter first (`merge_and_unload` in PEFT) and save the merged model",
        )


def list_unused(architecture: Architecture, names: Collection[str], used: Collection[str], where: str) -> list[str]:
    """Returns the tensors that no part of the model reads, except usual ones; refuses those of the encoder itself."""
    form = find_form(architecture)
    prefix = form.layers.split("{}")[0]
    numbers = [int(match[1]) for name in names if (match := re.match(rf"{re.escape(prefix)}(\d{{1,99}})\.", name))]
    if max(numbers, default=0) >= architecture.layers:
        what = f"the weights have {max(numbers) + 1} layers, config.json says {architecture.layers}"
        remedy = "use the config.json of the weights; `python -m xlkd.trim --layers=N` makes a model of fewer layers"
        raise UserError(what, where, remedy)
    unused = sorted(set(names) - set(used) - set(form.buffers))
    if foreign := [name for name in unused if name.startswith(form.body)]:
        what = f"tensor {foreign[0]} is part of an encoder that xlkd does not compute"
        raise UserError(what, where, f"use an encoder of the types {', '.join(list_families())}")
    return [name for name in unused if not name.startswith(form.unused)]
