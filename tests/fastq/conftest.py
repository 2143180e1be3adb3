"""Lets these tests use the oracles' tools, which the agents of ``baselines`` are tested with."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / "baselines"), str(Path(__file__).parent)]
