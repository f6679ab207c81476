# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Configs of studies: comparisons over several draws, each with its registration beside it."""
