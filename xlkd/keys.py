# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Purposes of random draws. A key is folded from (seed, purpose, step), so two purposes never share one."""

PURPOSES = {"init": 0, "dropout": 1, "advance": 2, "mixture": 17}
