"""Making a file of a table of intensive-care stays; all rows here are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from suites.datasets import file, mimic
from suites.datasets.__main__ import main
from suites.datasets.store import DatasetError
from suites.plan import make_plan
from suites.resolve import Options


def stays(count: int = 40) -> pd.DataFrame:
    """Made-up stays of 2 to 5 steps, their rows in no order."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "stay": f"s{stay}",
            "step": step,
            "heart_rate": rng.normal(90, 10),
            "lactate": rng.gamma(2.0),
            "iv_fluid": rng.gamma(1.0, 200.0) * (rng.random() < 0.7),
            "vasopressor": rng.gamma(1.0, 0.2) * (rng.random() < 0.6),
            "survived": int(stay % 5 > 0),
        }
        for stay in range(count)
        for step in range(2 + stay % 4)
    ]
    return pd.DataFrame(rows).sample(frac=1.0, random_state=0)


def written(folder: Path, table: pd.DataFrame) -> Path:
    path = folder / "extract.csv"
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("bins", [2, 5, 14])
def test_treatments_are_cut_at_quantiles_of_the_training_stays(tmp_path: Path, bins: int) -> None:
    table = stays(200)
    made = mimic.convert(written(tmp_path, table), bins)
    arrays = made.arrays
    assert made.stays == 200
    assert made.features == ["heart_rate", "lactate"]
    order = [(stay, step) for stay in dict.fromkeys(table["stay"]) for step in range(9)]
    there = table.set_index(["stay", "step"])
    rows = there.loc[[key for key in order if key in there.index]]
    np.testing.assert_allclose(arrays["observations"][:, 1], rows["lactate"], rtol=1e-6)
    ends = np.flatnonzero(arrays["terminations"]) + 1
    held_out = file.held_out_episodes(200)
    trained = np.repeat(~held_out, np.diff(ends, prepend=0))
    assert 0 < trained.sum() < len(trained)
    for k, name in enumerate(("iv_fluid", "vasopressor")):
        amounts, chosen = rows[name].to_numpy(), arrays["actions"][:, k]
        np.testing.assert_array_equal(chosen == 0, amounts == 0)
        assert chosen.max() == bins - 1
        for lower in range(1, bins - 1):  # more is never a smaller bin
            assert amounts[chosen == lower].max() <= amounts[chosen == lower + 1].min()
        counts = np.bincount(chosen[trained], minlength=bins)[1:]
        assert counts.max() - counts.min() <= 2
    alive = rows["survived"].to_numpy()
    np.testing.assert_array_equal(
        arrays["rewards"], np.where(arrays["terminations"] > 0, 100.0 * alive, 0.0)
    )


def test_the_command_makes_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTQ_BENCH_CACHE", str(tmp_path / "cache"))
    table = stays().rename(columns={"stay": "icustay", "survived": "alive"})
    to = tmp_path / "mine.npz"
    arguments = ["mimic", str(written(tmp_path, table)), "--bins", "5", "--to", str(to)]
    assert main(arguments) == 2
    assert 'column stay is missing (did you mean "icustay"?)' in capsys.readouterr().err
    arguments += ["--column", "stay=icustay", "--column", "survived=alive"]
    assert main(arguments) == 0
    assert "40 stays, 2 features" in capsys.readouterr().out
    made = make_plan(Options("", tasks=[str(to)], agents=["bcq"], out=tmp_path / "r", device="cpu"))
    (task,) = made.tasks
    assert task["spaces"]["action"]["nvec"] == [5, 5]
    assert {row.label for row in made.rows if not row.reference} == {"bc", "bcq"}


def test_logged_rewards_are_taken_as_they_are(tmp_path: Path) -> None:
    table = stays().drop(columns="survived").assign(reward=np.arange(len(stays())) / 10.0)
    found = mimic.convert(written(tmp_path, table), 3).arrays["rewards"]
    assert sorted(found) == pytest.approx(sorted(table["reward"]))


def changed(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.iloc[row, list(table.columns).index(column)] = value
        return table

    return change


WRONG = [
    (changed("lactate", 3, None), 5, r"lactate is empty in line 5, stay s\d+; fill it in"),
    (changed("lactate", 3, "high"), 5, "lactate is 'high' in line 5"),
    (changed("iv_fluid", 0, -1.0), 5, "iv_fluid is -1 in line 2, .* an amount is 0 or more"),
    (changed("stay", 1, None), 5, "line 3 has no stay"),
    (changed("survived", 0, 2), 5, "survived is 2 in line 2, .* 1 for a stay that ended alive"),
    (lambda t: pd.concat([t, t.iloc[:1]]), 5, r"step \d occurs twice .*one row per step"),
    (lambda t: t.assign(survived=np.arange(len(t)) % 2), 5, "survived changes within a stay"),
    (lambda t: t.assign(reward=0.0), 5, "both the columns reward and survived"),
    (lambda t: t.drop(columns="survived"), 5, "neither of the columns reward and survived"),
    (lambda t: t.drop(columns=["heart_rate", "lactate"]), 5, "has no feature columns"),
    (lambda t: t[t["stay"] == "s0"], 5, "has one stay"),
    (lambda t: t.assign(vasopressor=0.0), 5, "vasopressor is 0 in all stays"),
    (lambda t: t.assign(iv_fluid=np.arange(len(t)) % 3), 5, "too few different amounts .2. for 4"),
    (lambda t: t.iloc[:0], 5, "a header and no rows"),
    (lambda t: t, 1, "--bins must be from 2 to 20, not 1"),
]


@pytest.mark.parametrize(("change", "bins", "words"), WRONG)
def test_what_is_wrong_is_told_in_a_sentence(
    change: Callable[[pd.DataFrame], pd.DataFrame], bins: int, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=words):
        mimic.convert(written(tmp_path, change(stays())), bins)


def test_files_and_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="give the path of your extract"):
        mimic.convert(tmp_path / "no.csv", 5)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not a table of comma-separated values"):
        mimic.convert(tmp_path / "bytes.csv", 5)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DatasetError, match="not a table of comma-separated values"):
        mimic.convert(tmp_path / "empty.csv", 5)
    for setting, words in (("stay", "takes role=column"), ("dose=x", "the roles are stay, step")):
        with pytest.raises(DatasetError, match=words):
            mimic.read_names([setting])
    extract = mimic.convert(written(tmp_path, stays()), 5)
    with pytest.raises(DatasetError, match=r"ends in \.npz"):
        mimic.save(extract, tmp_path / "x.h5")
    with pytest.raises(DatasetError, match="cannot be written"):
        mimic.save(extract, tmp_path / "no" / "x.npz")
