"""Dataclasses from untrusted mappings: one clear sentence for each way to go wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest

from baselines.config import UsageError, build, check_name, convert, did_you_mean
from baselines.registry import BUILT_IN, Registry


@dataclass(frozen=True)
class Settings:
    name: str
    lr: float = 1e-3
    layers: int = 2
    hidden: tuple[int, ...] = (256, 256)
    limit: float | None = None
    mode: Literal["fast", "exact"] = "fast"
    clip: bool = False
    extra: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ValueError("lr must not be negative")


def test_values_are_converted() -> None:
    made = build(Settings, {"name": "x", "lr": "1e-4", "hidden": [8, 8], "limit": 3}, "here")
    assert made == Settings("x", 1e-4, hidden=(8, 8), limit=3.0)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, 'here: the key "name" is missing'),
        ([], "here must be a mapping of settings, not []"),
        ({"name": "x", "lrr": 1}, 'here: unknown key "lrr" (did you mean "lr"?)'),
        ({"name": "x", 3: 1}, 'here: unknown key "3"'),
        ({"name": 3}, "here: name must be str, not 3"),
        ({"name": "x", "lr": "fast"}, 'here: lr must be float, not "fast"'),
        ({"name": "x", "lr": True}, "here: lr must be float, not true"),
        ({"name": "x", "layers": 1.5}, "here: layers must be int, not 1.5"),
        ({"name": "x", "hidden": 8}, "here: hidden must be a list of int values, not 8"),
        ({"name": "x", "limit": "no"}, 'here: limit must be float or null, not "no"'),
        ({"name": "x", "mode": "quick"}, 'here: mode must be one of fast, exact, not "quick"'),
        ({"name": "x", "extra": 1}, "here: extra must be a mapping, not 1"),
        ({"name": "x", "lr": -1}, "here: lr must not be negative"),
    ],
)
def test_mistakes_are_explained(mapping: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(Settings, mapping, "here")
    assert str(caught.value).startswith(message)


def test_single_values() -> None:
    assert convert("3", int, "x") == 3
    assert convert("true", bool, "x") is True
    assert convert(None, float | None, "x") is None
    with pytest.raises(UsageError, match=r"^x must be int, not null$"):
        convert(None, int, "x")


def test_suggestions() -> None:
    assert did_you_mean("hoper", ["hopper", "walker"]) == ' (did you mean "hopper"?)'
    assert did_you_mean("zzz", ["b", "a"]) == " (known: a, b)"
    assert did_you_mean("zzz", []) == ""
    assert check_name("a", ["a"], "task") == "a"
    with pytest.raises(UsageError, match=r'^unknown task "\[\]" \(known: a\)$'):
        check_name([], ["a"], "task")


@pytest.mark.parametrize(
    ("agent", "setting", "message"),
    [
        ("td3_bc", {"discount": 99}, "here: discount must be from 0 to 1, not 99"),
        ("td3_bc", {"policy_delay": 0}, "here: policy_delay must be at least 1, not 0"),
        ("iql", {"expectile": float("nan")}, "here: expectile must be from 0 to 1, not nan"),
        ("bc", {"lr": -1}, "here: lr must be at least 0, not -1"),
    ],
)
def test_settings_out_of_range_are_refused(
    agent: str, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build(Registry().get(agent).Config, setting, "here")
    assert str(caught.value) == message


@pytest.mark.parametrize("agent", sorted({*BUILT_IN, "fastq"} - {"random"}))
def test_the_docs_list_every_setting_with_its_default(agent: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "agents" / f"{agent}.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    settings = {f.name: f.default for f in fields(Registry().get(agent).Config)}
    assert rows == {name: str(value).strip("()") for name, value in settings.items()}
