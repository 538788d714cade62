"""Imported before torch: its threads that wait do so asleep, as in a run.

Else they spin, and of tests that run side by side on few cores each takes several times as long.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
