# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The peak rate of this machine's processors, which MFU refers to."""

import json
import math
import pathlib
import platform

import pytest

from xlkd import processor
from xlkd.runtime import devices
from xlkd.train import loop


@pytest.fixture
def peaks(tmp_path, monkeypatch):
    """Returns the file of the measured rates; products seem to reach 5 GFLOP/s."""
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(devices, "_time_product", lambda size, dtype: 5e9 if size == 1024 else 4e9)
    return tmp_path / "cache" / "peak.json"


def test_the_best_rate_is_kept_and_a_loaded_machine_does_not_lower_it(peaks, monkeypatch):
    assert devices.measure_flops("float32") == 5e9
    monkeypatch.setattr(devices, "_time_product", lambda size, dtype: 1e9)
    assert devices.measure_flops("float32") == 5e9
    monkeypatch.setattr(devices, "_time_product", lambda size, dtype: 7e9)
    assert devices.measure_flops("float32") == 7e9
    assert list(json.loads(peaks.read_text()).values()) == [7e9]


def test_a_machine_whose_rate_is_known_is_measured_at_one_size(peaks, monkeypatch):
    devices.measure_flops("float32")
    sizes = []
    monkeypatch.setattr(devices, "_time_product", lambda size, dtype: sizes.append(size) or 1e9)
    assert devices.measure_flops("float32") == 5e9
    assert len(sizes) == 1


def test_rates_of_other_machines_are_kept_apart(peaks):
    peaks.parent.mkdir()
    peaks.write_text(json.dumps({"another processor, 4 cores, jaxlib 1": 9e12}))
    assert devices.measure_flops("float32") == 5e9
    assert sorted(json.loads(peaks.read_text()).values()) == [5e9, 9e12]


def test_types_have_rates_of_their_own(peaks, monkeypatch):
    monkeypatch.setattr(devices, "_time_product", lambda size, dtype: {"float32": 5e9, "bfloat16": 2e10}[dtype])
    assert [devices.measure_flops(dtype) for dtype in ("bfloat16", "float32")] == [2e10, 5e9]
    assert sorted(json.loads(peaks.read_text()).values()) == [5e9, 2e10]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": "y"}'])
def test_a_damaged_file_of_rates_is_replaced(peaks, content):
    peaks.parent.mkdir()
    peaks.write_text(content)
    assert devices.measure_flops("float32") == 5e9
    assert list(json.loads(peaks.read_text()).values()) == [5e9]


def test_a_cache_that_cannot_be_written_costs_only_the_memory(peaks):
    peaks.parent.write_text("a file")
    assert devices.measure_flops("float32") == 5e9


@pytest.mark.parametrize(("flops", "expected"), [(0.0, math.nan), (4e9, 0.4), (1e10, 1.0), (1.19e10, math.nan)])
def test_a_utilisation_is_below_the_peak_or_absent(flops, expected):
    assert loop.compute_mfu(flops, 2.0, 5e9) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_is_really_timed(dtype):
    assert 1e6 < devices._time_product(64, dtype) < 1e16


XEON = "model\t\t: {}\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fpu avx2 avx512f {}\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16\nCPU part\t: 0xd4f\n"


@pytest.mark.parametrize(
    ("text", "description"),
    [
        (XEON.format(143, "amx_bf16") * 2, "Intel(R) Xeon(R) Processor, model 143, avx2 avx512f amx_bf16"),
        (XEON.format(207, "amx_bf16_of_a_later_kind"), "Intel(R) Xeon(R) Processor, model 207, avx2 avx512f"),
        (ARM, "aarch64, CPU part 0xd4f, asimd sve bf16"),
        ("", "aarch64"),
    ],
    ids=["with AMX", "without AMX", "ARM", "empty"],
)
def test_processors_of_one_name_are_told_apart(monkeypatch, text, description):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path, **options: text)
    monkeypatch.setattr(platform, "processor", lambda: "aarch64")
    assert processor.describe() == description
