"""Replaying stored transitions finds data that is not what its card says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from suites.datasets import local, store
from suites.datasets.store import Dataset, DatasetError
from suites.datasets.verify import TOLERANCE, verify

SAMPLED = 300


@pytest.fixture(scope="module")
def made(data_cache: Any) -> dict[str, Dataset]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTQ_BENCH_CACHE", str(data_cache))
        tasks = ("walker2d-medium", "hopper-random", "halfcheetah-random")
        return {task: store.load(local.ensure(task, 3000)) for task in tasks}


def declared(data: Dataset, env_id: str, table: np.ndarray | None = None) -> Dataset:
    return Dataset(None, data.card | {"env_id": env_id}, data.table if table is None else table)


def test_good_data_is_found_good(made: dict[str, Dataset]) -> None:
    for data in made.values():
        verdict = verify(data, SAMPLED)
        assert verdict.faults == []
        assert verdict.replayed >= SAMPLED
        for median, _, _, largest in verdict.errors.values():
            assert 0 < median < 1e-5
            assert largest < TOLERANCE
        falls = "terminations" in " ".join(verdict.errors)
        assert falls == (not data.card["env_id"].startswith("HalfCheetah"))


def test_another_version_of_the_environment(made: dict[str, Dataset]) -> None:
    verdict = verify(declared(made["walker2d-medium"], "Walker2d-v4"), SAMPLED)
    faults = " ".join(verdict.faults)
    assert "next observation of transitions" in faults  # the left foot slips in -v4
    assert "reward of terminations: 100.0% differ" in faults  # -v4 pays for health even then
    assert verdict.fits == ["Walker2d-v5"]
    verdict = verify(declared(made["hopper-random"], "Hopper-v4"), SAMPLED)
    assert len(verdict.faults) >= 1
    assert all(fault.startswith("reward of") for fault in verdict.faults)
    assert verdict.fits == ["Hopper-v5"]


def test_another_environments_rows(made: dict[str, Dataset]) -> None:
    verdict = verify(declared(made["halfcheetah-random"], "Walker2d-v5"), SAMPLED)
    assert "next observation of transitions: 100.0% differ" in " ".join(verdict.faults)
    assert verdict.fits == ["HalfCheetah-v4", "HalfCheetah-v5"]  # these two do the same
    verdict = verify(declared(made["hopper-random"], "HalfCheetah-v5"), SAMPLED)
    assert verdict.faults == ["observations: have 11 numbers where those of HalfCheetah-v5 have 17"]


def test_shuffled_rows(made: dict[str, Dataset]) -> None:
    data = made["walker2d-medium"]
    generator = np.random.default_rng(0)
    whole = declared(data, "Walker2d-v5", generator.permutation(data.table))
    (fault, *_) = verify(whole, SAMPLED).faults
    assert fault.startswith("order: ")
    table = data.table.copy()
    start, stop = data.card["columns"]["actions"]
    table[:, start:stop] = generator.permutation(table[:, start:stop])
    faults = verify(declared(data, "Walker2d-v5", table), SAMPLED).faults
    assert [fault.split(":")[0] for fault in faults][:2] == [
        "next observation of transitions",
        "reward of transitions",
    ]


def test_damaged_columns(made: dict[str, Dataset]) -> None:
    data = made["hopper-random"]
    columns = data.card["columns"]

    def faults(field: str, change: Any) -> str:
        table = data.table.copy()
        start, stop = columns[field]
        table[:, start:stop] = change(table[:, start:stop])
        return " ".join(verify(declared(data, "Hopper-v5", table), SAMPLED).faults)

    assert "do not sum to the reward" in faults("reward_parts", lambda parts: parts + 1e-3)
    assert "one is 2" in faults("actions", lambda actions: np.full_like(actions, 2.0))
    wrong = faults("terminations", np.zeros_like)
    assert "termination of transitions" in wrong
    assert "order" in wrong
    with_nan = faults("rewards", lambda rewards: np.full_like(rewards, np.nan))
    assert "rewards: holds NaN" in with_nan


def test_unknown_environment(made: dict[str, Dataset]) -> None:
    with pytest.raises(DatasetError, match="env_id is Ant-v5; transitions can be replayed in Half"):
        verify(declared(made["hopper-random"], "Ant-v5"))
