"""A user's own logs: what a file becomes, and what is said of one that cannot be used."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_data import logs, save

from suites.datasets import __main__ as command
from suites.datasets import file, file_read, get_source, own_task, store
from suites.datasets.file_layout import Content, check
from suites.datasets.groups import policy_groups
from suites.datasets.store import DatasetError
from suites.spaces import from_plain


def content(folder: Path, suffix: str = ".npz", **changes: Any) -> Content:
    path = save(folder / f"logs{suffix}", logs(**changes))
    return check(path, file_read.read(path))


def message(folder: Path, **changes: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        content(folder, **changes)
    text = str(caught.value)
    assert text.startswith(f"{folder / 'logs.npz'}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_what_is_in_the_file_is_in_the_dataset(tmp_path: Path, suffix: str) -> None:
    parts = np.random.default_rng(1).standard_normal((20, 2))
    arrays = logs(
        rewards=parts.sum(1),
        reward_parts=parts,
        reward_part_names=["speed", "effort"],
        policy_ids=np.arange(20) // 10,
        action_low=-2.0,
        action_high=np.array([2.0, 3.0]),
        reference_min=-1,
        reference_max=5.5,
        horizon=5,
        name="Pump station",
    )
    loaded = content(tmp_path, suffix, **arrays)
    for name in (*store.REQUIRED, "reward_parts", "policy_ids"):
        expected = np.asarray(arrays[name], np.float32).reshape(20, -1)
        np.testing.assert_array_equal(loaded.fields[name].reshape(20, -1), expected)
    assert (loaded.horizon, loaded.title, loaded.env_id) == (5, "Pump station", None)
    assert (loaded.reference, loaded.reward_parts) == ((-1.0, 5.5), ["speed", "effort"])
    assert loaded.notes == []
    space: Any = from_plain(loaded.action_space)
    np.testing.assert_array_equal(space.low, [-2, -2])
    np.testing.assert_array_equal(space.high, [2, 3])


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_dict_observations_lie_side_by_side_in_alphabetical_order(
    tmp_path: Path, suffix: str
) -> None:
    rng = np.random.default_rng(0)
    camera, arm = rng.standard_normal((20, 2, 2)), rng.standard_normal(20)
    found = content(
        tmp_path,
        suffix,
        observations=None,
        next_observations=None,
        **{"observations/camera": camera, "observations/arm": arm},
    )
    assert found.parts == [("arm", 1), ("camera", 4)]
    space = gymnasium.spaces.Dict(
        {"camera": gymnasium.spaces.Box(-9, 9, (2, 2)), "arm": gymnasium.spaces.Box(-9, 9, ())}
    )
    shown = {"camera": camera[0].astype(np.float32), "arm": arm[0].astype(np.float32)}
    np.testing.assert_array_equal(
        found.fields["observations"][0], gymnasium.spaces.flatten(space, shown)
    )


def test_next_observations_are_the_next_row_s(tmp_path: Path) -> None:
    """A terminated row shows its own; a truncated one has no successor and is left out."""
    given_ = logs(next_observations=None)
    found = content(tmp_path, next_observations=None)
    kept = [row for row in range(20) if row not in (9, 14, 19)]
    observations = given_["observations"]
    np.testing.assert_array_equal(found.fields["observations"], observations[kept])
    successors = [row if row == 4 else row + 1 for row in kept]
    np.testing.assert_array_equal(found.fields["next_observations"], observations[successors])
    assert np.flatnonzero(found.fields["truncations"]).tolist() == [8, 12, 16]
    assert np.flatnonzero(found.fields["terminations"]).tolist() == [4]
    assert "3 truncated rows have no successor" in " ".join(found.notes)


def test_a_file_that_stops_in_an_episode_is_truncated_there_and_says_so(tmp_path: Path) -> None:
    flags = logs()["truncations"]
    flags[-1] = False
    found = content(tmp_path, truncations=flags)
    assert found.fields["truncations"][-1] == 1
    assert "the last row, 19, ends no episode" in " ".join(found.notes)
    nothing = np.zeros_like(flags)
    found = content(tmp_path, truncations=nothing, terminations=nothing)
    assert "no row ends an episode: all 20 are taken as one" in " ".join(found.notes)


def test_three_ways_to_say_where_episodes_end(tmp_path: Path) -> None:
    plain = logs()
    ends = plain["terminations"] | plain["truncations"]
    for changes in ({"timeouts": plain["truncations"]}, {"episode_ends": ends}):
        found = content(tmp_path, truncations=None, **changes)
        np.testing.assert_array_equal(found.fields["truncations"], plain["truncations"])
        np.testing.assert_array_equal(found.fields["terminations"], plain["terminations"])
    both = content(tmp_path, truncations=ends)
    assert "1 rows both terminate and truncate" in " ".join(both.notes)


def test_integer_actions_make_discrete_spaces(tmp_path: Path) -> None:
    one = np.arange(20) % 3
    two = np.stack([one, np.arange(20) % 2], 1)
    high = np.array([4])
    assert content(tmp_path, actions=one).action_space == {"kind": "Discrete", "n": 3, "start": 0}
    assert content(tmp_path, actions=one[:, None], action_high=high).action_space["n"] == 5
    space: Any = from_plain(content(tmp_path, actions=two).action_space)
    assert space == gymnasium.spaces.MultiDiscrete([3, 2])


def test_bounds_that_nobody_gave(tmp_path: Path) -> None:
    assert content(tmp_path).action_space["high"] == 1.0
    wide = logs()["actions"] * np.array([3, 0], np.float32)
    found = content(tmp_path, actions=wide)
    space: Any = from_plain(found.action_space)
    np.testing.assert_array_equal(space.low, [wide[:, 0].min(), -1])  # never without a width
    np.testing.assert_array_equal(space.high, [wide[:, 0].max(), 1])
    assert "without action_low and action_high" in " ".join(found.notes)


def test_a_simulator_bounds_actions_and_orders_observations(tmp_path: Path) -> None:
    seen = np.zeros((20, 11))
    hopper: dict[str, Any] = {"observations": seen, "next_observations": seen}
    found = content(tmp_path, **hopper, actions=np.full((20, 3), 0.5), env_id="Hopper-v5")
    assert (found.env_id, found.horizon) == ("Hopper-v5", 1000)
    assert found.action_space["high"] == 1.0
    cart: dict[str, Any] = {"observations": seen[:, :4], "next_observations": seen[:, :4]}
    found = content(tmp_path, **cart, actions=np.arange(20) % 2, env_id="CartPole-v1")
    assert found.action_space == {"kind": "Discrete", "n": 2, "start": 0}


A = np.zeros((20, 2), np.float32)


def changed(name: str, index: Any, value: Any) -> Any:
    array = np.array(logs()[name])
    array[index] = value
    return array


BROKEN: list[tuple[dict[str, Any], list[str]]] = [
    ({"rewards": None}, ["rewards is missing", "add it"]),
    ({"truncations": None}, ["truncations is missing", "timeouts", "episode_ends", "zeros"]),
    ({"timeouts": np.zeros(20)}, ["truncations and timeouts are both there", "exactly one"]),
    ({"reward": np.zeros(20)}, ["reward is no array", 'did you mean "rewards"', "infos/"]),
    ({"terminals": np.zeros(20)}, ["terminals is no array", 'did you mean "terminations"']),
    ({"observations": changed("observations", (7, 1), np.nan)}, ["observations[7, 1] is nan"]),
    ({"rewards": changed("rewards", 3, np.inf)}, ["rewards[3] is inf; remove or repair"]),
    ({"rewards": changed("rewards", 3, 1e300)}, ["rewards[3] is 1e+300", "float32"]),
    ({"rewards": np.zeros(19)}, ["rewards has 19 rows", "observations has 20"]),
    ({"rewards": np.zeros((20, 2))}, ["rewards has shape (20, 2)", "one number per transition"]),
    ({"rewards": 3.0}, ["rewards is a single value"]),
    ({"rewards": np.array(["1"] * 20)}, ["rewards has dtype <U1", "real numbers"]),
    ({"actions": A.astype(complex)}, ["actions has dtype complex128", "real numbers"]),
    ({"observations": np.zeros((0, 3))}, ["observations is empty"]),
    ({"observations": np.zeros((20, 0))}, ["its rows hold nothing"]),
    ({"terminations": changed("truncations", 2, 1) * 2}, ["terminations[2] is 2", "0 or 1"]),
    ({"terminations": np.full(20, 0.5)}, ["terminations[0] is 0.5", "0 or 1"]),
    (
        {"truncations": None, "episode_ends": np.zeros(20)},
        ["episode_ends[4] is 0", "where it terminates"],
    ),
    ({"next_observations": np.zeros((20, 4))}, ["next_observations are [N, 4]", "[N, 3]"]),
    (
        {"observations/x": np.zeros(20)},
        ["observations and observations/x are both there", "keep one"],
    ),
    (
        {"action_low": -1.0, "action_high": 0.5, "actions": A + 0.75},
        ["actions[0, 0] is 0.75", "above action_high, 0.5", "39 more", "clip"],
    ),
    ({"action_low": -1.0}, ["action_low and action_high go together"]),
    ({"action_low": 1.0, "action_high": [2.0, 1.0]}, ["action_low[1] is 1", "not below"]),
    ({"action_low": [1.0, 1, 1], "action_high": 1.0}, ["action_low has 3 values"]),
    ({"actions": np.arange(20) - 1}, ["actions[0, 0] is -1", "below 0"]),
    ({"actions": np.arange(20), "action_high": 9}, ["actions[10, 0] is 10", "above action_high"]),
    ({"policy_ids": np.arange(20) - 1}, ["policy_ids[0] is -1", "from 0"]),
    ({"policy_ids": np.full(20, 0.5)}, ["policy_ids[0] is 0.5", "whole"]),
    ({"policy_ids": np.full(20, 7)}, ["policy_ids go up to 7 and 0 does not occur"]),
    ({"policy_ids": np.full(20, 1e12)}, ["policy_ids holds numbers of 16,777,216 or more"]),
    (
        {"reward_parts": np.ones((20, 2)), "rewards": changed("rewards", slice(None), 2) * 1.01},
        ["reward_parts[0] sum to 2 and rewards[0] is 2.02", "19 more"],
    ),
    ({"reward_part_names": ["a"]}, ["reward_part_names is there without reward_parts"]),
    (
        {"reward_parts": logs()["rewards"], "reward_part_names": ["a", "b"]},
        ["reward_part_names has 2 names", "1 columns"],
    ),
    (
        {"actions": np.arange(20) % 2, "action_log_probs": np.full(20, 0.5)},
        ["action_log_probs[0] is 0.5", "at most 0"],
    ),
    ({"env_id": "os:Evil-v0"}, ["env_id is 'os:Evil-v0'", "gymnasium id"]),
    ({"env_id": "Hoper-v5"}, ["env_id Hoper-v5 cannot be made", "leave it out"]),
    ({"env_id": "Hopper-v5"}, ["observations has 3 numbers", "Hopper-v5 shows 11"]),
    ({"env_id": 5}, ["env_id has dtype int64", "text"]),
    ({"horizon": 2.5}, ["horizon is 2.5", "whole number of steps"]),
    ({"reference_min": 0.0}, ["reference_min is there without the other"]),
    ({"reference_min": 3.0, "reference_max": 3.0}, ["reference_min is 3, not below"]),
    ({"name": "two\nlines"}, ["name holds 'two\\nlines'", "printable"]),
    (
        {"next_observations": None, "terminations": np.zeros(20), "truncations": np.ones(20)},
        ["no transition is left", "add next_observations"],
    ),
    ({"rewards": np.array([{}] * 20)}, ["rewards holds Python objects", "nothing is unpickled"]),
]


@pytest.mark.parametrize(("changes", "words"), BROKEN, ids=[words[0] for _, words in BROKEN])
def test_messages_name_array_index_and_remedy(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    text = message(tmp_path, **changes)
    for word in words:
        assert word in text


def _npy(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))


def _zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")


def _half(path: Path) -> None:
    save(path, logs())
    path.write_bytes(path.read_bytes()[:900])


NOT_DATA: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing", lambda path: None, "No such file or directory; give the path"),
    ("empty", lambda path: path.write_bytes(b""), "is empty"),
    ("text", lambda path: path.write_text("a,b\n1,2\n"), "neither NPZ nor HDF5"),
    ("pickle", lambda path: path.write_bytes(pickle.dumps({"a": 1})), "neither NPZ nor HDF5"),
    ("npy", _npy, "single array"),
    ("zip", _zip_of_text, "notes.txt, which is no array"),
    ("cut", _half, "damaged or incomplete"),
    ("bare", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "damaged or incomplete"),
    ("folder", lambda path: path.mkdir(), "cannot be read"),
]


@pytest.mark.parametrize(("name", "make", "words"), NOT_DATA, ids=[n for n, _, _ in NOT_DATA])
def test_files_that_are_no_data(
    tmp_path: Path, name: str, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / f"{name}.npz"
    make(path)
    with pytest.raises(DatasetError, match=words) as caught:
        file.own_task(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hdf5_says_nothing_of_other_files(tmp_path: Path) -> None:
    import h5py

    save(tmp_path / "secret.h5", {"rewards": np.zeros(20)})
    path = save(tmp_path / "logs.h5", logs(rewards=None))
    with h5py.File(path, "a") as opened:
        opened["rewards"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "rewards")
    with pytest.raises(DatasetError, match="rewards is a link to another place"):
        file_read.read(path)


def test_texts_that_never_come_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "logs.h5", logs(name="x"))
    monkeypatch.setattr(file_read, "PATIENCE", 0.0)
    with pytest.raises(DatasetError, match="name cannot be read as text"):
        file_read.read(path)


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("where", ["member", "file", "dtype"])
def test_a_pickle_does_not_run(tmp_path: Path, where: str) -> None:
    path, crater = tmp_path / "logs.npz", tmp_path / "crater"
    if where == "file":
        path.write_bytes(pickle.dumps(Bomb(crater)))
    elif where == "member":
        save(path, logs(rewards=np.array([Bomb(crater)] * 20, object)))
    else:  # a header that hides the object's dtype from a careless reader
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|O", "fortran_order": False, "shape": (20,)}
        )
        with zipfile.ZipFile(save(path, logs(rewards=None)), "a") as archive:
            archive.writestr("rewards.npy", stream.getvalue() + pickle.dumps(Bomb(crater)))
    with pytest.raises(DatasetError):
        file.own_task(str(path))
    assert not crater.exists()


# Mutations of valid files ------------------------------------------------------------------------

VALID = logs(
    policy_ids=np.arange(20) // 10,
    reward_parts=logs()["rewards"][:, None],
    horizon=5,
    action_low=-1.0,
    action_high=1.0,
)
NAMES = sorted(VALID)
OTHER_NAMES = ["reward", "timeouts", "episode_ends", "x", "observations/a", "../up", "a\nb", ""]
DTYPES = ["f2", "f4", ">f8", "i1", "u8", "?", "c8", "U3", "S2", "M8[s]", "O"]
SHAPES: list[Callable[[Any], Any]] = [
    lambda a: a[None],
    lambda a: a.T,
    lambda a: a.ravel(),
    lambda a: a[..., None],
    lambda a: a.reshape(-1)[:7],
    lambda a: a[:-1] if a.ndim else a,
    lambda a: np.repeat(a, 2, axis=0) if a.ndim else a,
]
VALUES = [np.nan, np.inf, -np.inf, 1e30, 1e300, -1.0, 0.5, 2.0]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A valid file's arrays with one thing changed, and what it was."""
    arrays, name = dict(VALID), draw(st.sampled_from(NAMES))
    kind = draw(st.sampled_from(["drop", "rename", "shape", "type", "value"]))
    with np.errstate(all="ignore"):
        if kind == "drop":
            del arrays[name]
        elif kind == "rename":
            arrays[draw(st.sampled_from(OTHER_NAMES))] = arrays.pop(name)
        elif kind == "shape":
            arrays[name] = draw(st.sampled_from(SHAPES))(np.asarray(arrays[name]))
        elif kind == "type":
            arrays[name] = np.asarray(arrays[name]).astype(float).astype(object)
            dtype = draw(st.sampled_from(DTYPES))
            plain = arrays[name].astype(float)
            arrays[name] = (plain.astype(int) if dtype == "M8[s]" else plain).astype(dtype)
        else:
            array = np.array(arrays[name], np.float64)
            place = draw(st.integers(0, array.size - 1))
            array.reshape(-1)[place] = draw(st.sampled_from(VALUES))
            arrays[name] = array
    return kind, arrays


def attempt(path: Path) -> Content | None:
    """What loads, or None with a sentence; anything else is a bug and raises."""
    try:
        return check(path, file_read.read(path))
    except DatasetError as error:
        sentence = str(error)
    assert str(path) in sentence
    assert "\n" not in sentence
    return None


@settings(
    max_examples=250,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mutation=mutations())
def test_a_mutated_file_is_refused_or_loaded_as_it_is(
    tmp_path: Path, mutation: tuple[str, dict[str, Any]]
) -> None:
    kind, arrays = mutation
    found = attempt(save(tmp_path / "logs.npz", arrays))
    if found is None:
        return
    derived = "next_observations" not in arrays  # then truncated rows are left out
    kept = ~VALID["truncations"] if derived else np.ones(20, bool)
    for name in (*store.REQUIRED, "policy_ids", "reward_parts"):
        if name in arrays:
            expected = np.asarray(arrays[name]).astype(np.float32).reshape(20, -1)[kept]
            loaded = found.fields[name].reshape(len(expected), -1)
            if name == "truncations" and derived:
                expected = np.append(VALID[name][1:], False)[kept, None]
            if name == "truncations":  # the last row may end an episode now
                assert loaded[-1] or found.fields["terminations"][-1]
                expected, loaded = expected[:-1], loaded[:-1]
            np.testing.assert_array_equal(loaded, expected, err_msg=kind)
        elif name != "next_observations":
            assert kind in ("drop", "rename")
            assert name not in found.fields or name == "truncations"
    assert all(np.isfinite(values).all() for values in found.fields.values())


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("valid")
    plain = {key: value for key, value in VALID.items() if key != "policy_ids"}
    return {
        suffix: save(folder / f"logs{suffix}", plain).read_bytes() for suffix in (".npz", ".h5")
    }


@settings(
    max_examples=250,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    suffix=st.sampled_from([".npz", ".h5"]),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    flips=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_damaged_bytes_are_refused_or_load_as_they_were(
    tmp_path: Path,
    valid: dict[str, bytes],
    suffix: str,
    cut: float | None,
    flips: list[tuple[float, int]],
) -> None:
    """HDF5 has no checksums, so there a flipped number is another number."""
    content_ = bytearray(valid[suffix])
    if cut is not None:
        content_ = content_[: int(cut * len(content_))]
    else:
        for place, change in flips:
            content_[int(place * len(content_))] ^= change
    path = tmp_path / f"logs{suffix}"
    path.write_bytes(content_)
    found = attempt(path)
    if found is not None and suffix == ".npz":
        for name in (*store.REQUIRED, "reward_parts"):
            expected = np.asarray(VALID[name], np.float32)
            np.testing.assert_array_equal(found.fields[name].reshape(expected.shape), expected)


# The source --------------------------------------------------------------------------------------


def test_a_file_is_converted_once_and_never_taken_for_another(tmp_path: Path) -> None:
    path = save(tmp_path / "My logs (2).npz", logs(env_id=None))
    task = own_task(file, str(path))  # type: ignore[arg-type]
    assert task is not None
    assert (task.id, task.key, task.title) == ("My-logs-2", str(path), "My logs (2)")
    folder = file.ensure(task.key)
    before = (folder / "transitions.npy").stat().st_mtime_ns
    assert file.ensure(task.key) == folder
    assert (folder / "transitions.npy").stat().st_mtime_ns == before
    assert file.is_cached(task.key)
    old = file.identity(task.key)["id"]
    save(path, logs(rewards=logs()["rewards"] + 1))
    assert file.identity(task.key)["id"] != old
    assert not file.is_cached(task.key)
    assert file.ensure(task.key) != folder
    with pytest.raises(DatasetError, match="one draw; leave --dataset-seeds out"):
        file.identity(task.key, seed=1)


def test_a_file_of_data_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = len(logs()["rewards"])
    path = save(tmp_path / "logs.npz", logs(policy_ids=np.arange(rows) % 2))
    assert command.main(["describe", str(path), "--source", "file"]) == 0
    shown = capsys.readouterr().out
    assert "policy 1" in shown
    assert f"{rows:,} transitions" in shown


def test_ends_that_are_missing_are_told(tmp_path: Path) -> None:
    whole = logs()
    assert not [note for note in content(tmp_path, **whole).notes if "next row" in note]
    first = int(np.flatnonzero(whole["terminations"] + whole["truncations"])[0])
    ends = {name: whole[name].copy() for name in ("terminations", "truncations")}
    for values in ends.values():
        values[first] = 0
    (note,) = [note for note in content(tmp_path, **logs(**ends)).notes if "next row" in note]
    assert note.startswith(f"1 rows that end no episode (the first: {first})")


def test_every_logged_episode_counts_and_short_ones_are_told(tmp_path: Path) -> None:
    """Also those cut before the environment's limit, and those that lose their last row."""
    rng, steps = np.random.default_rng(0), (1000, 40, 200)
    ends, fallen = np.zeros(sum(steps)), np.zeros(sum(steps))
    ends[np.cumsum(steps) - 1] = 1
    fallen[steps[0] + steps[1] - 1] = 1
    path = tmp_path / "hop.npz"
    np.savez(
        path,
        observations=rng.standard_normal((sum(steps), 11)),
        actions=rng.uniform(-1, 1, (sum(steps), 3)),
        rewards=np.ones(sum(steps)),
        terminations=fallen,
        episode_ends=ends,
        env_id="Hopper-v5",
    )
    returns, _ = store.load(file.ensure(str(path))).episodes()
    assert returns.tolist() == [999, 40, 199]  # without their successors, two lose a row
    task = own_task(get_source("file"), str(path))
    assert task is not None
    assert "1 of 3 episodes were cut before the environment's limit of 1,000" in " ".join(
        task.notes
    )


def test_episodes_are_held_out_where_nothing_else_can_judge(tmp_path: Path) -> None:
    path = save(tmp_path / "logs.npz", logs(episodes=30))
    training, held_out = store.load(file.ensure(str(path))).split()
    assert held_out is not None
    assert len(held_out.table) == 15
    assert len(training.table) == 135
    together = np.concatenate([training.column("rewards"), held_out.column("rewards")])
    assert sorted(together) == sorted(logs(episodes=30)["rewards"].astype(np.float32))
    for part in (training, held_out):
        starts = part.episode_starts
        assert (np.diff(starts) == 5).all()
    cart = logs(
        observations=np.zeros((20, 4)),
        next_observations=None,
        actions=np.arange(20) % 2,
        env_id="CartPole-v1",
    )
    simulated = store.load(file.ensure(str(save(tmp_path / "cart.npz", cart))))
    assert simulated.split() == (simulated, None)


def test_a_budget_s_cap_cuts_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "logs.npz", logs(policy_ids=np.arange(20) // 10))
    small = store.load(file.ensure(str(path), 12))
    assert len(small.table) == 12
    assert small.card["id"] != file.identity(str(path))["id"]
    assert [policy["share"] for policy in small.card["policies"]] == [10 / 12, 2 / 12]
    assert set(policy_groups(small.card)) == {0, 1}


def test_tasks_of_the_catalogue_are_not_the_file_s() -> None:
    assert own_task(file, "hopper-medium") is None  # type: ignore[arg-type]
    assert "--tasks data.npz" in str(file.missing("hopper-medium"))
