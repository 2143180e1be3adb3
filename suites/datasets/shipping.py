"""What the learners of behaviour policies share: their command line, scoring, and shipping.

A learner keeps its policies in a run folder, ``<steps>.npz`` each, beside ``state.pt``, from which
it continues. Shipping scores them as they act after the rounding to float16, chooses those that the
datasets need, and puts them into ``suites/datasets/behaviour``.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from results.record import normalized_score, to_json, write_atomically
from suites.catalog import reference
from suites.datasets import behaviour, store
from suites.datasets.behaviour import Policy
from suites.datasets.recipes.locomotion import ENVIRONMENTS, play_policy

MEDIUM_SCORE = {"halfcheetah": 42.0, "hopper": 44.0, "walker2d": 62.0}  # means of D4RL's v2 files
NOISE = {"medium": 1.0, "expert": 0.25}  # of the data, in the policy's own standard deviations
FEWEST = 20  # policies before medium, so that medium-replay shows the course of learning
PROPOSALS = 12  # policies scored for each level
TOLERANCE = 2.0  # points around D4RL's medium within which the earliest policy is taken
STATE_FILE = "state.pt"


@dataclass(frozen=True)
class Run:
    """A training run that has policies to ship.

    Attributes:
        environment: for example "hopper".
        folder: its run folder.
        algorithm: the learner's name.
        config: its hyperparameters.
        seed: of the run.
        steps: environment steps taken.
        seconds: of processor time they took, without scoring.
        curve: a point per kept policy, in the order of training, each with its "steps".
        proposed: what the curve says about the kept policies' scores: level -> steps -> score.
    """

    environment: str
    folder: Path
    algorithm: str
    config: Mapping[str, Any]
    seed: int
    steps: int
    seconds: float
    curve: list[dict[str, float]]
    proposed: Mapping[str, Mapping[int, float]]

    def file(self, steps: int) -> Path:
        """The policy that was kept after so many steps."""
        return policy_file(self.folder, steps)


def policy_file(folder: Path, steps: int) -> Path:
    """Where a run keeps the policy it had after ``steps`` environment steps."""
    return folder / f"{steps:08d}.npz"


def tell(name: str, numbers: Mapping[str, Any]) -> None:
    """Prints one line of progress."""
    print(f"{name}: " + "  ".join(f"{k} {v}" for k, v in numbers.items()), flush=True)


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Replaces the state that training continues from, in one step."""
    partial = folder / f"{STATE_FILE}.partial"
    torch.save(dict(state), partial)
    partial.replace(folder / STATE_FILE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state that training continues from, None if there is none yet."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def score(environment: str, policy: Policy, noise: float, episodes: int, stream: int) -> float:
    """Mean D4RL score over at least ``episodes`` episodes, played as the datasets are."""
    rows = episodes * 1000
    env_id = ENVIRONMENTS[environment]
    data = play_policy(env_id, policy, noise=noise, rows=rows, entropy=(stream,))
    returns, _ = data.episodes()
    minimum, maximum, _ = reference(environment)
    return round(float(normalized_score(returns.mean(), minimum, maximum)), 1)


def ship(run: Run, every: int) -> None:
    """Chooses the policies of the datasets among the kept ones and replaces the shipped ones.

    Everything is scored after the rounding to float16, with the noise of the data. The learner's
    curve proposes; medium is the earliest proposal at D4RL's medium score, expert the best one, and
    both are scored again on fresh episodes. Shipped are every ``every``-th policy until medium,
    whose mixture is medium-replay, medium and expert.
    """
    torch.set_num_threads(1)
    target = MEDIUM_SCORE[run.environment]
    kept = [int(point["steps"]) for point in run.curve]

    def choose(level: str, loss: Callable[[float], float]) -> int:
        scores: dict[int, float] = {}
        proposed = sorted(kept[FEWEST * every :], key=lambda s: loss(run.proposed[level][s]))
        for steps in sorted(proposed[:PROPOSALS]):
            policy = Policy.load(run.file(steps))
            scores[steps] = score(run.environment, policy, NOISE[level], 20, stream=1)
            tell(level, {"steps": steps, "score": scores[steps]})
        return min(scores, key=lambda steps: loss(scores[steps]))

    chosen = {
        "medium": choose("medium", lambda score: max(0.0, abs(score - target) - TOLERANCE)),
        "expert": choose("expert", lambda score: -score),
    }
    levels = {}
    for level, steps in chosen.items():
        policy = Policy.load(run.file(steps))
        levels[level] = {
            "checkpoint": f"step{steps}",
            "noise": NOISE[level],
            "score": score(run.environment, policy, NOISE[level], 100, stream=2),
        }
        tell(level, levels[level])

    folder = behaviour.folder(run.environment)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    until_medium = [steps for steps in kept[::every] if steps < chosen["medium"]]
    index = {
        "env_id": ENVIRONMENTS[run.environment],
        "training": {
            "algorithm": run.algorithm,
            "config": dict(run.config),
            "steps": run.steps,
            "seconds": run.seconds,
            "mujoco": version("mujoco"),
            "torch": version("torch"),
            "seed": run.seed,
            "every": every,
        },
        "levels": levels,
        "checkpoints": [
            _shipped(run, steps, folder) for steps in sorted({*until_medium, *chosen.values()})
        ],
        "curve": run.curve,
    }
    write_atomically(folder / behaviour.INDEX_FILE, to_json(index))


def _shipped(run: Run, steps: int, folder: Path) -> dict[str, Any]:
    """Copies one policy; its entry in the index."""
    name = f"step{steps}"
    file = Path(shutil.copyfile(run.file(steps), folder / f"{name}.npz"))
    policy = Policy.load(file)
    scores = {
        "score": score(run.environment, policy, 0.0, 20, stream=3),
        "score_noisy": score(run.environment, policy, 1.0, 20, stream=4),
    }
    tell(name, scores)
    digest = store.file_sha256(file)
    return {"name": name, "file": file.name, "sha256": digest, "steps": steps, **scores}


def command_line(
    module: str,
    description: str | None,
    steps: int,
    train: Callable[[str, int, int, Path], None],
    finished: Callable[[str, int, Path], Run],
) -> None:
    """The command line of a learner.

    Args:
        module: its name, for the usage line.
        description: of the learner.
        steps: environment steps by default.
        train: learns: environment, steps, seed and run folder.
        finished: what a run folder holds: environment, seed and run folder.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("verb", choices=("train", "ship"))
    parser.add_argument("environment", choices=sorted(ENVIRONMENTS))
    parser.add_argument("--steps", type=int, default=steps, help="environment steps in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="ship: of how many kept, one")
    parser.add_argument("--out", type=Path, default=Path("results/runs/behaviour"))
    options = parser.parse_args()
    algorithm = module.rpartition(".")[2]
    folder = options.out / f"{options.environment}-{algorithm}-seed{options.seed}"
    if options.verb == "train":
        os.makedirs(folder, exist_ok=True)
        torch.set_num_threads(1)  # the networks are too small to share
        train(options.environment, options.steps, options.seed, folder)
    elif (folder / STATE_FILE).exists():
        ship(finished(options.environment, options.seed, folder), options.every)
    else:
        parser.error(f"{folder}: nothing was trained there; use train first")
