"""Groups of logging policies: neighbours by return, of about equal size, delivered in batches."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from baselines.contract import Needs, Spec
from suites.datasets import local, store
from suites.datasets.groups import policy_groups
from suites.datasets.sampler import Sampler
from suites.datasets.store import DatasetError
from suites.datasets.transforms import Transform


def card(shares: list[float], returns: list[float | None]) -> dict[str, Any]:
    return {
        "task": "t",
        "policies": [
            {"share": share, "return_mean": value}
            for share, value in zip(shares, returns, strict=True)
        ],
    }


def test_neighbours_by_return_in_groups_of_equal_size() -> None:
    returns: list[float | None] = [5.0, 1.0, 3.0, 2.0, 6.0, 4.0]
    assert policy_groups(card([1 / 6] * 6, returns)).tolist() == [2, 0, 1, 0, 2, 1]


def test_sizes_are_as_equal_as_can_be() -> None:
    generator = np.random.default_rng(0)
    for groups in (1, 2, 3, 4):
        shares = generator.dirichlet(np.ones(9))
        found = policy_groups(card(shares.tolist(), list(range(9))), groups)
        assert (np.diff(found) >= 0).all()
        cost = np.square(np.bincount(found, shares, groups)).sum()
        best = min(
            np.square(np.add.reduceat(shares, [0, *cuts])).sum()
            for cuts in itertools.combinations(range(1, 9), groups - 1)
        )
        assert cost == pytest.approx(best)


def test_no_group_is_empty() -> None:
    assert policy_groups(card([0.98, 0.01, 0.01], [1.0, 2.0, 3.0])).tolist() == [0, 1, 2]
    assert policy_groups(card([0.5, 0.5], [9.0, 2.0])).tolist() == [1, 0]


def test_unmeasured_policies_stay_with_their_predecessor() -> None:
    found = policy_groups(card([0.25] * 4, [None, 9.0, None, 3.0]), 2)
    assert found.tolist() == [0, 1, 1, 0]


def test_refusals() -> None:
    with pytest.raises(DatasetError, match="does not say which policies acted"):
        policy_groups({"id": "x"})
    for groups in (0, 9):
        with pytest.raises(DatasetError, match=f"are {groups}; ask for 1 to 8"):
            policy_groups(card([1.0], [1.0]), groups)


def test_batches_carry_the_group() -> None:
    data = store.load(local.ensure("hopper-medium-replay", 4000))
    transform = Transform.fit(data, Needs(()))
    box = spaces.Box(-1, 1, (3,))
    spec = Spec(box, box)
    expected = policy_groups(data.card, 2)
    for window in (None, 4):
        needs = Needs(("policy_ids", "policy_groups"), 256, window, policy_groups=2)
        batch = Sampler(data, needs, transform, [0, 1], spec).sample()
        ids, groups = batch["policy_ids"].numpy(), batch["policy_groups"].numpy()
        if window is None:
            np.testing.assert_array_equal(groups, expected[ids])
            assert set(groups.flat) == {0, 1}
        assert groups.shape == ids.shape
        alone = Sampler(
            data, Needs(("policy_groups",), 256, window, policy_groups=2), transform, [0, 1], spec
        ).sample()
        assert set(alone) == {"policy_groups"}
        np.testing.assert_array_equal(alone["policy_groups"].numpy(), groups)
