"""The dataset folder: what is written is read, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from baselines.contract import Needs, Spec
from suites.datasets import store
from suites.datasets.sampler import Sampler
from suites.datasets.store import DatasetError
from suites.datasets.transforms import Transform


def fields(rows: int = 10) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    ends = np.zeros(rows)
    ends[[3, 7]] = 1
    return {
        "observations": generator.normal(size=(rows, 3)),
        "actions": generator.normal(size=(rows, 2)),
        "rewards": np.arange(rows),
        "next_observations": generator.normal(size=(rows, 3)),
        "terminations": ends * (np.arange(rows) == 3),
        "truncations": ends * (np.arange(rows) == 7),
        "policy_ids": np.arange(rows),
    }


def test_written_is_read(tmp_path: Path) -> None:
    given = fields()
    store.write(tmp_path / "data", given, {"id": "x", "task": "t"})
    data = store.load(tmp_path / "data", verify=True)
    assert data.fields == tuple(given)
    assert data.table.dtype == np.float32
    assert isinstance(data.table, np.memmap)
    for name, values in given.items():
        assert data.column(name).shape == values.shape
        np.testing.assert_array_equal(data.column(name), values.astype(np.float32))
        assert np.shares_memory(data.column(name), data.table)
    assert data.card["id"] == "x"
    assert data.card["transitions"] == 10
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is shared")
def test_readers_share_one_copy(tmp_path: Path) -> None:
    """Whoever reads a table, or draws batches from it, has no page of it for itself."""
    data = store.write(tmp_path / "data", fields(50_000), {})
    needs = Needs(("observations", "rewards"), batch_size=50_000)
    box = spaces.Box(-1, 1, (3,))
    sampler = Sampler(data, needs, Transform.fit(data, needs), [0], Spec(box, box))
    sampler.sample()
    data.table.sum()
    numbers: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            inside = str(tmp_path / "data" / store.TABLE_FILE) in line
        elif inside and values[-1] == "kB":
            numbers[name] = numbers.get(name, 0) + int(values[0])
    assert numbers["Rss:"] >= 0.9 * data.table.nbytes / 1024
    assert numbers["Private_Dirty:"] == 0
    assert numbers["Anonymous:"] == 0


def test_episode_starts(tmp_path: Path) -> None:
    assert store.write(tmp_path / "a", fields(), {}).episode_starts.tolist() == [0, 4, 8]
    assert store.write(tmp_path / "b", fields(8), {}).episode_starts.tolist() == [0, 4]


def test_episodes_counts_only_complete_ones(tmp_path: Path) -> None:
    def outcome(card: dict[str, int], stop: int | None = None) -> tuple[list[float], list[int]]:
        returns, lengths = store.write(tmp_path / "data", fields(), card).episodes(0, stop)
        return returns.tolist(), lengths.tolist()

    assert outcome({"horizon": 1000}) == ([6.0], [4])
    assert outcome({"horizon": 4}) == ([6.0, 22.0], [4, 4])
    assert outcome({"horizon": 4}, stop=7) == ([6.0], [4])
    assert outcome({}) == ([6.0, 22.0], [4, 4])
    nothing = np.zeros(5, np.float32)
    assert store.episodes(nothing, nothing, nothing, 1000)[0].size == 0


def test_last_rows_belong_to_the_complete_episodes(tmp_path: Path) -> None:
    for card in ({"horizon": 1000}, {"horizon": 4}, {}):
        data = store.write(tmp_path / "data", fields(), card)
        _, lengths = data.episodes()
        assert data.last_rows().tolist() == [3, 7][: len(lengths)]


def test_replaces_an_older_dataset(tmp_path: Path) -> None:
    store.write(tmp_path / "data", fields(8), {})
    assert len(store.write(tmp_path / "data", fields(10), {}).table) == 10


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        store.write(tmp_path / "data", fields(), {"id": object()})
    assert list(tmp_path.iterdir()) == []


def test_refuses_fields_that_do_not_fit(tmp_path: Path) -> None:
    short = fields() | {"rewards": np.zeros(9)}
    with pytest.raises(DatasetError, match="rewards has 9 rows and observations have 10"):
        store.write(tmp_path / "data", short, {})
    with pytest.raises(DatasetError, match="needs the field actions"):
        store.pack({name: values for name, values in fields().items() if name != "actions"})
    with pytest.raises(DatasetError, match="rewards holds NaN"):
        store.pack(fields() | {"rewards": np.full(10, np.nan)})


def test_unknown_field(tmp_path: Path) -> None:
    data = store.write(tmp_path / "data", fields(), {"id": "x"})
    with pytest.raises(DatasetError, match="dataset x: no field reward_parts; it has observations"):
        data.column("reward_parts")


def test_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    table, card = folder / store.TABLE_FILE, folder / store.CARD_FILE

    def fresh() -> None:
        store.write(folder, fields(), {})

    def error(verify: bool = False) -> str:
        with pytest.raises(DatasetError) as caught:
            store.load(folder, verify)
        return str(caught.value)

    assert error() == f"{card}: no such file; make the dataset again"
    fresh()
    table.unlink()
    assert error() == f"{table}: no such file; make the dataset again"
    fresh()
    table.write_bytes(table.read_bytes()[:-4])
    assert "damaged" in error()
    table.write_bytes(b"")
    assert "damaged" in error()
    fresh()
    card.write_text("{")
    assert "not a dataset's card" in error()
    fresh()
    card.write_text(json.dumps(json.loads(card.read_text()) | {"transitions": 11}))
    assert "where the card says float32 (11, 12)" in error()
    fresh()
    content = bytearray(table.read_bytes())
    content[-1] ^= 1
    table.write_bytes(content)
    store.load(folder)
    assert "differs from its sha256" in error(verify=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"file/x cannot be written \(Not a directory\).*CACHE"):
        store.make_once(tmp_path / "file" / "x" / "y", lambda: None)
