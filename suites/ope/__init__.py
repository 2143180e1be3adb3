"""Off-policy evaluation: what logged data alone can say of a policy.

:mod:`suites.ope.estimators` is the arithmetic, :mod:`suites.ope.judging` what a training run does
with it, :mod:`suites.ope.behaviour` estimates who logged where the log does not tell, and
:mod:`suites.ope.calibration` checks all of it where the truth is known. ``docs/
off-policy-evaluation.md`` tells what the numbers mean.
"""

from suites.ope.estimators import Estimate, Settings, estimate, estimate_return
from suites.ope.judging import judge

__all__ = ["Estimate", "Settings", "estimate", "estimate_return", "judge"]
