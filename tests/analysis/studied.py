"""Made-up outcomes of studies, put into the records of a synthetic suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from results.record import read_plan, read_record, write_record, write_study

NONE = {"applies": False, "why": 'the agent has no method "represent"'}


def bounds(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def balance(rng: np.random.Generator, left: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """``left``: how much of what tells the groups apart is left after balancing."""
    views = {}
    for view, share in (("raw", 1.0), ("before", 0.95), ("after", left)):
        value = 1 / 3 + 0.55 * share + rng.normal(0, 0.01)
        views[view] = {
            "accuracy": {"value": value, "low": value - 0.03, "high": value + 0.03, "episodes": 90},
            "distance": {"between": 0.06 + 0.3 * share, "floor": 0.05},
        }
    numbers = {
        "applies": True, "groups": 3, "chance": 1 / 3, "nothing_to_balance": left < 0.1,
        "episodes": 300, "states": 9000, "views": views,
    }  # fmt: skip
    groups = rng.integers(0, 3, 300)
    centre = 20.0 * np.stack([np.cos(2 * groups), np.sin(2 * groups)], 1)
    shape = (300, 2)
    arrays = {
        "groups": groups,
        "rows": np.arange(300),
        "before": (centre + 6 * rng.standard_normal(shape)).astype(np.float32),
        "after": (left * centre + 6 * rng.standard_normal(shape)).astype(np.float32),
    }
    return numbers, arrays


def exploration(rng: np.random.Generator, known: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """``known``: whether the agent has counterfactual actions."""
    names = ["logged", "agent", *(["group 0", "group 1", "group 2"] if known else [])]
    returned = 150 + 60 * rng.standard_normal((1, 250)) + 5 * rng.standard_normal((len(names), 250))
    predicted = 0.8 * returned + 40 + 20 * rng.standard_normal(returned.shape)
    kinds = {}
    for name, p, r in zip(names, predicted, returned, strict=True):
        kinds[name] = {
            "pairs": 250, "predicted": p.mean(), "returned": r.mean(), "returned_std": r.std(),
            "bias": bounds(float((p - r).mean()), 3.0),
            "rank_correlation": float(np.corrcoef(p, r)[0, 1]),
        }  # fmt: skip
    lift = {"agent": {"predicted": bounds(9.0, 1.0), "true": bounds(rng.normal(3, 1), 2.0)}}
    arrays = {"kinds": np.array(names), "predicted": predicted, "returned": returned}
    if known:
        kinds["counterfactual"] = kinds["group 0"] | {"pairs": 500}
        lift["counterfactual"] = {"predicted": bounds(6, 1), "true": bounds(rng.normal(-2, 1), 2)}
        lift["chosen"] = {"predicted": bounds(11, 1), "true": bounds(rng.normal(1, 1), 2)}
        arrays["groups"] = rng.integers(0, 3, 250)
    numbers = {
        "applies": True, "states": 250, "pairs": 250 * len(names), "passed_over": 19,
        "discount": 0.99, "restored_reward_error": 7e-8, "kinds": kinds, "lift": lift,
    }  # fmt: skip
    return numbers, arrays


def decomposition(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    numbers = {
        "applies": True, "rows": 4000, "saturated": 0.02, "negative_values": 0.01,
        "weights": {"forward": 0.1, "survive": 0.06, "overflow": 0.84},
        "weights_std": {"forward": 0.03, "survive": 0.03, "overflow": 0.05},
        "fit": {
            "forward": {"rmse": 0.3 + rng.normal(0, 0.05), "target": 1.8, "target_std": 1.0,
                        "explained": 1.7, "r2": 0.9, "correlation": 0.96},
            "survive": {"rmse": 0.1, "target": 1.0, "target_std": 0.0, "explained": 1.0,
                        "r2": None, "correlation": None},
        },
        "returns": {"applies": True, "pairs": 1000, "passed_over": 3, "predicted": 100.0,
                    "returned": 150.0, "returned_std": 60.0, "bias": bounds(-50.0, 3.0),
                    "rank_correlation": 0.7},
    }  # fmt: skip
    returned = 150 + 60 * rng.standard_normal(1000)
    arrays = {"predicted": 0.5 * returned + 10 * rng.standard_normal(1000), "returned": returned}
    return numbers, arrays


def add_studies(folder: Path, out: Path, quiet: str = "bc") -> None:
    """Puts outcomes into all records of a plan; those of the agent ``quiet`` do not apply."""
    for cell in read_plan(folder / "plan.json").cells:
        if cell["agent"] in ("random", "behaviour"):
            continue
        place = out / str(cell["path"])
        record = read_record(place)
        rng = np.random.default_rng([int(cell["seed"]), len(cell["agent"]), len(cell["task"])])
        made: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "balance": balance(rng, 0.05 if "replay" in cell["task"] else 0.4),
            "exploration": exploration(rng, cell["agent"] == "iql"),
            "decomposition": decomposition(rng),
        }
        if cell["agent"] == quiet:
            made = {name: (NONE, {}) for name in made}
        for name, (_, arrays) in made.items():
            if arrays:
                write_study(place, name, arrays)
        share = np.linspace(0, 1, len(record.curve))
        curve = [
            {**point, "metrics": {"discount": round(x, 1), "td_loss": float(np.exp(3 * x))}}
            for point, x in zip(record.curve, share, strict=True)
        ]
        stalled = {"name": "gamma_stalled", "update": 7000, "text": "stage 2 <b>of 5</b>"}
        write_record(
            place,
            replace(
                record,
                curve=curve,
                studies={name: numbers for name, (numbers, _) in made.items()},
                warnings=[stalled] if (cell["agent"], cell["seed"]) == ("iql", 1) else [],
            ),
        )
