# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Knowledge moves across languages inside one multilingual encoder."""
