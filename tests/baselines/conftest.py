"""Lets the tests of one agent import what all of them share (``oracles.py``)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
