# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The traffic of a compiled program, counted from excerpts of programs for CPUs and TPUs."""

import pytest

from xlkd.planning import traffic

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%condition (state: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[] compare(%number, %limit), direction=LT
}

%inner (state: (s32[], f32[4])) -> (s32[], f32[4]) {
  %gathered = bf16[1,768,768]{2,1,0:T(8,128)(2,1)} all-gather(%own), channel_id=7, replica_groups=mesh['axis_0'=8,'axis_1'=1,'axis_2'=8], device_ids=([8,8]T(1,0)) {'axis_0'}, dimensions={1}
  %again = bf16[1,768,768]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%own), channel_id=7, replica_groups=mesh['axis_0'=8,'axis_1'=1,'axis_2'=8], device_ids=([8,8]T(1,0)) {'axis_0'}, dimensions={1}
  %scattered = bf16[96,768]{1,0} fusion(%gradient), kind=kCustom, calls=%all-reduce-scatter.6
}

%all-reduce-scatter.6 (input: bf16[768,768]) -> bf16[96,768] {
  %reduced = bf16[768,768]{1,0} all-reduce(%input), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7},{8,9,10,11,12,13,14,15}}, to_apply=%add
  ROOT %part = bf16[96,768]{1,0} dynamic-slice(%reduced, %number, %zero), dynamic_slice_sizes={96,768}
}

%outer (state: (s32[], f32[4])) -> (s32[], f32[4]) {
  %layers = (s32[], f32[4]) while(%state), condition=%condition, body=%inner
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %parts = (s32[], f32[4]) while(%start), condition=%other, body=%outer, backend_config={"known_trip_count":{"n":"4"}}
  %table = (f32[100,4]{1,0}, /*index=1*/f32[]) all-reduce(%a, %b), channel_id=2, replica_groups=[1,64]<=[64], to_apply=%add
  %moved = f32[64,8]{1,0} all-to-all(%c), channel_id=3, replica_groups=[8,8]<=[64], dimensions={0}
  %alone = f32[1000]{0} all-reduce(%d), channel_id=4, replica_groups=[64,1]<=[64], to_apply=%add
}
"""


@pytest.mark.parametrize(
    ("kind", "size", "group", "times"),
    [
        ("all-gather", 768 * 768 * 2, 8, 48),  # in steps, each of which has a line
        ("reduce-scatter", 768 * 768 * 2, 8, 48),
        ("all-reduce", 1604, 64, 1),
        ("all-to-all", 2048, 8, 1),
    ],
)
def test_collectives_count_as_often_as_their_loops_run(kind, size, group, times):
    collectives = [each for each in traffic.list_collectives(PROGRAM, 64) if each.kind == kind]
    assert [(each.bytes, each.group, each.times) for each in collectives] == [(size, group, times)]


def test_bytes_are_those_that_a_device_sends_in_a_ring():
    described = traffic.describe_traffic(PROGRAM, 64, vocabulary=100)
    kernel = 48 * 768 * 768 * 2 * 7 / 8
    table = 2 * 1600 * 63 / 64
    assert described["kinds"] == pytest.approx(
        {"all-gather": kernel, "reduce-scatter": kernel, "all-reduce": 2 * 1604 * 63 / 64, "all-to-all": 2048 * 7 / 8}
    )
    assert described["in_loops"] == pytest.approx(kernel)
    assert described["table"] == pytest.approx(table)
    assert described["types"] == pytest.approx({"bf16": kernel, "f32": 2 * 1604 * 63 / 64})
    assert described["total"] == pytest.approx(sum(described["kinds"].values()))
