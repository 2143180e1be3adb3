"""A user's own logs of days: windows made of them, agents trained on them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from histories import ACTIONS, DAYS, FEATURES, STATIC, Diary, fields, windows_space
from own_data import save

from baselines.config import UsageError
from baselines.registry import Registry
from suites import load_policy
from suites.catalog import ENVIRONMENTS
from suites.cli import main
from suites.datasets import file, store
from suites.export import export_policy
from suites.matching import match_needs
from suites.plan import make_plan
from suites.resolve import Options
from suites.spaces import from_plain

TINY = """
title: tiny
tasks: [hopper-random]
agents:
  bc: {}
  paper: {agent: fastq, preset: paper, config: {hidden: [8], expert_hidden: [8], batch_size: 16}}
budget: tiny
budgets:
  tiny: {updates: 20, seeds: 1, evaluations: 1, evaluation_episodes: 1, final_episodes: 1,
         transitions: 1000}
"""


def days(**changes: Any) -> dict[str, Any]:
    """Logs of three policies in the layout of docs/own-data.md; None takes an array out."""
    made = fields(episodes=24)
    rows = made.pop("observations"), made.pop("next_observations")
    arrays: dict[str, Any] = {**made, "history": DAYS}
    arrays["policy_ids"] = made["policy_ids"].astype(int)
    arrays["reward_parts"] = np.stack([0.25 * made["rewards"], 0.75 * made["rewards"]], 1)
    for name, values in zip(("observations", "next_observations"), rows, strict=True):
        arrays[f"{name}/static"] = values[:, :STATIC]
        arrays[f"{name}/temporal"] = values[:, STATIC:]
    arrays.update({name.replace("__", "/"): value for name, value in changes.items()})
    return {name: value for name, value in arrays.items() if value is not None}


def test_a_file_of_days_tells_agents_of_windows(tmp_path: Path) -> None:
    path = save(tmp_path / "days.npz", days())
    task = file.own_task(str(path))
    assert task is not None and task.spaces is not None
    assert from_plain(task.spaces["observation"]) == windows_space()
    data = store.load(file.ensure(task.key))
    assert (data.card["history"], data.card["static"]) == (DAYS, STATIC)
    assert data.column("observations").shape[1] == STATIC + FEATURES  # days, not windows
    without = save(tmp_path / "plain.npz", days(history=None))
    plain = file.own_task(str(without))
    assert plain is not None and plain.spaces is not None
    assert from_plain(plain.spaces["observation"]).shape == (STATIC + FEATURES,)
    assert "history" not in store.load(file.ensure(plain.key)).card


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"history": 0}, r"history is 0; it is a whole number of days, from 1 on"),
        ({"history": 2.5}, r"history is 2.5; it is a whole number of days"),
        ({"history": np.arange(3)}, r"history has shape \(3,\); it must be one number"),
        (
            {"observations__static": None, "next_observations__static": None},
            r"history is there and observations are temporal \[N, 3\]; give observations/static "
            "and observations/temporal, with a row per day",
        ),
        (
            {"env_id": "Pendulum-v1", "horizon": None},
            r"observations has the keys static, temporal and Pendulum-v1 shows one array",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    path = save(tmp_path / "days.npz", days(**changes))
    with pytest.raises(store.DatasetError, match=sentence):
        file.own_task(str(path))


def test_windows_are_not_to_be_logged(tmp_path: Path) -> None:
    rows = len(days()["rewards"])
    logged = np.zeros((rows, DAYS, FEATURES))
    changes = {"observations__temporal": logged, "next_observations__temporal": logged}
    path = save(tmp_path / "days.npz", days(**changes))
    with pytest.raises(store.DatasetError, match=r"give each day's own numbers, \[N, features\]"):
        file.own_task(str(path))


def options(tmp_path: Path, path: Path, **more: Any) -> Options:
    return Options(suite="", tasks=[str(path)], out=tmp_path / "runs", **more)


@pytest.mark.parametrize("agent", ["dt", "qt", "rebrac"])
def test_agents_without_an_encoder_are_refused_while_planning(tmp_path: Path, agent: str) -> None:
    path = save(tmp_path / "days.npz", days())
    with pytest.raises(UsageError, match="needs a one-dimensional Box of observations") as error:
        make_plan(options(tmp_path, path, agents=[agent], budget="smoke"))
    assert "\n" not in str(error.value)


def test_own_logs_of_three_policies_are_learned_from(
    tmp_path: Path, hasten: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hasten(monkeypatch)
    path = save(tmp_path / "days.npz", days())
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "runs"
    arguments = [str(tmp_path / "tiny.yaml"), "--tasks", str(path), "--out", str(out)]
    assert main([*arguments, "--jobs", "1"]) == 0
    cells = sorted(out.glob("cells/**/policy.pt"))
    assert len(cells) == 2
    rng = np.random.default_rng(0)
    shown = {
        "static": rng.standard_normal((5, STATIC)),
        "temporal": rng.standard_normal((5, DAYS, FEATURES)),
    }
    for cell in cells:
        policy = load_policy(cell)
        assert policy.observation_space == windows_space()
        actions = policy.act(shown)
        assert actions.shape == (5, ACTIONS)
        one = policy.act({key: values[2] for key, values in shown.items()})
        np.testing.assert_allclose(one, actions[2], atol=1e-6)
        earlier = {key: values.copy() for key, values in shown.items()}
        earlier["temporal"][:, :2] = 0
        assert np.abs(policy.act(earlier) - actions).max() > 1e-6
        with pytest.raises(UsageError, match="are a dict of static and temporal"):
            policy.act(shown["static"])
        with pytest.raises(UsageError, match=r'observations\["temporal"\] of shape'):
            policy.act({**shown, "temporal": shown["temporal"][:, :2]})
        with pytest.raises(UsageError, match="static is of 5 episodes and temporal of 3"):
            policy.act({**shown, "temporal": shown["temporal"][:3]})
        policy.reset()
        assert export_policy(policy, tmp_path / "policy.pt2") < 1e-5
        program = torch.export.load(tmp_path / "policy.pt2").module()
        space: Any = policy.observation_space
        raw = {k: torch.from_numpy(v.astype(space[k].dtype)) for k, v in shown.items()}
        np.testing.assert_allclose(program(raw).detach(), actions, atol=1e-4)


# Tasks of the catalogue ----------------------------------------------------------------------


@pytest.fixture
def diaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the hopper's observations histories."""
    monkeypatch.setitem(ENVIRONMENTS, "hopper", replace(ENVIRONMENTS["hopper"], history=True))
    monkeypatch.setattr("suites.envs.make_vector", Diary)


@pytest.mark.usefixtures("diaries")
@pytest.mark.parametrize(
    ("agent", "phases", "sentence"),
    [
        ("rebrac", None, "needs a one-dimensional Box of observations"),
        ("dt", None, "needs a one-dimensional Box of observations"),
        (
            "td3_bc",
            "[{name: online, updates: 1.0, source: replay, env_steps_per_update: 1,"
            " warmup_env_steps: 300}]",
            "an observation of task hopper-random is a history of days",
        ),
    ],
)
def test_tasks_of_histories_are_matched_while_planning(
    tmp_path: Path, agent: str, phases: str | None, sentence: str
) -> None:
    arm = f"agent: {agent}" + (f", phases: {phases}" if phases else "")
    manifest = tmp_path / "diaries.yaml"
    manifest.write_text(f"title: d\ntasks: [hopper-random]\nagents: {{one: {{{arm}}}}}\n")
    with pytest.raises(UsageError, match=sentence):
        make_plan(Options(suite=str(manifest), out=tmp_path, budget="smoke"))


@pytest.mark.usefixtures("diaries")
def test_windows_of_windows_are_refused() -> None:
    """Of an agent that would take such spaces, and learns from windows of its own."""
    cls = Registry().get("dt")
    row: Any = SimpleNamespace(label="one", cls=cls, config={})
    task = {
        "id": "hopper-random",
        "environment": "hopper",
        "fields": cls.needs(cls.Config()).fields,
    }
    with pytest.raises(
        UsageError, match=r'agent "one" learns from windows of \d+ steps, and an obs'
    ):
        match_needs([row], [task], "local", ["one"])
    kept, notes = match_needs([row], [task], "local", [])
    assert kept == [] and len(notes) == 1
