"""Batches: right rows, right transform, windows that never cross an episode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from baselines.contract import TRANSITION_FIELDS, WINDOW_FIELDS, Needs, Spec
from suites.datasets import store
from suites.datasets.sampler import Sampler, whole
from suites.datasets.transforms import Transform

LENGTHS = [7, 1, 12, 3, 9]  # the last episode is left unfinished


def made_up(lengths: list[int] = LENGTHS) -> store.Dataset:
    rng = np.random.default_rng(0)
    rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    terminations, truncations = np.zeros(rows), np.zeros(rows)
    terminations[ends[0:-1:2]] = 1
    truncations[ends[1:-1:2]] = 1
    parts = rng.standard_normal((rows, 2))
    observations = rng.standard_normal((rows, 3)) * 4 + 10
    observations[:, 0] = np.arange(rows)  # names the row
    table, columns = store.pack(
        {
            "observations": observations,
            "actions": rng.uniform(-1, 1, (rows, 2)),
            "rewards": parts.sum(1),
            "next_observations": observations + 0.5,
            "terminations": terminations,
            "truncations": truncations,
            "policy_ids": rng.integers(0, 3, rows),
            "reward_parts": parts,
        }
    )
    return store.Dataset(
        None, {"columns": columns, "return_best": 9.0, "return_worst": -1.0}, table
    )


def sampler(needs: Needs, seeds: tuple[int, ...] = (0, 1, 2), dtype: str = "float64") -> Sampler:
    box = spaces.Box(-1, 1, (2,))
    spec = Spec(spaces.Box(-np.inf, np.inf, (3,)), box, dtype=dtype)  # type: ignore[arg-type]
    data = made_up()
    return Sampler(data, needs, Transform.fit(data, needs), seeds, spec)


def test_transitions_are_rows_of_the_table() -> None:
    data = made_up()
    batch = sampler(Needs(TRANSITION_FIELDS, batch_size=64)).sample()
    assert set(batch) == set(TRANSITION_FIELDS)
    rows = batch["observations"][..., 0].long().numpy()
    assert rows.shape == (3, 64)
    for field, value in batch.items():
        np.testing.assert_allclose(value.numpy(), data.column(field)[rows], rtol=1e-6)
    assert batch["policy_ids"].dtype == torch.int64


def test_every_row_is_drawn_equally_often() -> None:
    drawing = sampler(Needs(("observations",), batch_size=4096))
    rows = torch.cat([drawing.sample()["observations"][..., 0].flatten() for _ in range(5)])
    counts = np.bincount(rows.long().numpy(), minlength=sum(LENGTHS))
    expected = counts.sum() / sum(LENGTHS)
    assert abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_seeds_draw_alone_as_in_a_stack() -> None:
    needs = Needs(("observations",), batch_size=32)
    stacked = sampler(needs, (3, 5, 4)).sample()["observations"]
    alone = sampler(needs, (5,)).sample()["observations"]
    assert torch.equal(stacked[1], alone[0])
    assert not torch.equal(stacked[0], stacked[1])


def test_standardized_and_scaled() -> None:
    data = made_up()
    needs = Needs(
        ("observations", "next_observations", "rewards", "reward_parts"),
        batch_size=50,
        observations="standardized",
        rewards="return_range",
    )
    transform = Transform.fit(data, needs)
    observations = data.column("observations").astype(np.float64)
    shift, scale = observations.mean(0), 1 / (observations.std(0) + 1e-3)
    np.testing.assert_allclose(transform.shift, shift)
    np.testing.assert_allclose(transform.scale, scale)
    assert transform.reward_scale == pytest.approx(1000.0 / 10.0)

    batch = sampler(needs).sample()
    rows = (batch["observations"][..., 0].numpy() / scale[0] + shift[0]).round().astype(int)
    np.testing.assert_allclose(
        batch["observations"].numpy(), (observations[rows] - shift) * scale, rtol=1e-5, atol=1e-6
    )
    following = data.column("next_observations").astype(np.float64)[rows]
    np.testing.assert_allclose(
        batch["next_observations"].numpy(), (following - shift) * scale, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        batch["rewards"].numpy(), data.column("rewards")[rows] * 100.0, rtol=1e-5
    )
    np.testing.assert_allclose(
        batch["reward_parts"].sum(-1).numpy(), batch["rewards"].numpy(), rtol=1e-4, atol=1e-4
    )
    restored = Transform.from_dict(transform.to_dict())
    np.testing.assert_array_equal(
        restored.observations(observations), transform.observations(observations)
    )


def test_windows_stay_inside_episodes_and_are_padded_left() -> None:
    window = 5
    data = made_up()
    needs = Needs((*TRANSITION_FIELDS, *WINDOW_FIELDS), batch_size=256, window=window)
    batch = sampler(needs).sample()
    assert batch["observations"].shape == (3, 256, window, 3)
    begins = np.concatenate(([0], np.cumsum(LENGTHS)))
    episode_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    rewards = data.column("rewards").astype(np.float64)
    seen_padding = False
    for seed in range(3):
        for i in range(256):
            mask = batch["mask"][seed, i].numpy().astype(bool)
            assert mask[-1]
            assert (np.diff(mask.astype(int)) >= 0).all()  # padding, then steps
            rows = batch["observations"][seed, i, :, 0].long().numpy()[mask]
            assert (np.diff(rows) == 1).all()
            assert len(set(episode_of[rows])) == 1
            episode = episode_of[rows[0]]
            assert len(rows) == min(window, begins[episode + 1] - rows[0])
            expected = [rewards[row : begins[episode + 1]].sum() for row in rows]
            found = batch["returns_to_go"][seed, i].numpy()[mask]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            steps = batch["timesteps"][seed, i].numpy()[mask]
            np.testing.assert_array_equal(steps, rows - begins[episode])
            for field, value in batch.items():
                padding = value[seed, i].numpy()[~mask]
                assert not padding.any(), field
                seen_padding |= padding.size > 0
    assert seen_padding


@pytest.mark.parametrize("window", [None, 4])
def test_the_whole_dataset_is_every_row_as_batches_have_it(window: int | None) -> None:
    fields = ("observations", "rewards", "policy_ids", *(("mask",) if window else ()))
    needs = Needs(
        fields, window=window, observations="standardized", rewards="return_range", dataset=True
    )
    spec = Spec(spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1, 1, (2,)), dtype="float64")
    data = made_up()
    transform = Transform.fit(data, needs)
    everything = whole(data, needs, transform, spec)
    assert set(everything) == {*fields, "returns_to_go", "timesteps"} - {"mask"}
    seen = transform.observations(data.column("observations").astype(np.float64))
    np.testing.assert_allclose(everything["observations"].numpy(), seen, rtol=1e-9, atol=1e-9)
    rewards = data.column("rewards").astype(np.float64) * 100  # 1000 / (9 - -1)
    np.testing.assert_allclose(everything["rewards"].numpy(), rewards, rtol=1e-6)
    assert everything["policy_ids"].tolist() == data.column("policy_ids").astype(int).tolist()
    steps = [step for length in LENGTHS for step in range(length)]
    assert everything["timesteps"].tolist() == steps
    starts = np.cumsum([0, *LENGTHS[:-1]])
    to_go = [
        rewards[start + step : start + length].sum()
        for start, length in zip(starts, LENGTHS, strict=True)
        for step in range(length)
    ]
    np.testing.assert_allclose(everything["returns_to_go"].numpy(), to_go, rtol=1e-6)
