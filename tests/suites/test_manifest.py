"""Every mistake in a manifest or on the command line is one sentence, before any compute."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from baselines.config import UsageError
from suites.catalog import TASKS
from suites.cli import main
from suites.console import print_plan
from suites.manifest import load_budgets, load_suite, shipped
from suites.plan import make_plan
from suites.resolve import Options

GOOD = "tasks: [hopper-medium]\nagents: [bc]\n"


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_shipped_suites_read_and_their_sizes() -> None:
    suites = {name: load_suite(name) for name in shipped()}
    sizes = {name: len(suite.tasks) for name, suite in suites.items()}
    assert sizes.items() >= {"core3": 3, "mujoco_9": 9, "mujoco_all": 15}.items()
    assert sizes.items() >= {"maze2d": 3, "antmaze": 6, "adroit": 12, "kitchen": 3}.items()
    for domain, name in (("locomotion", "mujoco_all"), *((n, n) for n in ("maze2d", "antmaze"))):
        assert set(suites[name].tasks) == {t.id for t in TASKS.values() if t.domain == domain}
    for name in ("mujoco_9", "mujoco_all"):
        assert suites[name].tasks[:3] == suites["core3"].tasks  # what tells most comes first
    for suite in suites.values():
        assert suite.arms and suite.tasks


def test_more_agents_run_by_name_or_with_all(tmp_path: Path) -> None:
    hosted = ["bc", "td3_bc", "iql", "cql", "qt", "ad_rl", "famo2o", "fastq"]
    for name in ("core3", "mujoco_9", "mujoco_all"):
        suite = load_suite(name)
        assert list(suite.arms) == hosted
        assert list(suite.more) == ["dt", "rebrac", "diffusion_ql", "famo2o_cql"]

    mine = (
        "tasks: [hopper-medium]\nagents: [td3_bc]\nmore: {a1: {agent: td3_bc, config: {alpha: 1}}}"
    )
    path = write(tmp_path, mine)

    def labels(agents: list[str] | None) -> list[str]:
        made = make_plan(Options(path, agents=agents, out=tmp_path / "runs", device="cpu"))
        return [row.label for row in made.rows][2:]

    assert labels(None) == ["bc", "td3_bc"]
    assert labels(["all"]) == ["bc", "td3_bc", "a1"]
    assert labels(["a1"]) == ["bc", "a1"]
    for key in ("more: [td3_bc]", "more: [iql, iql]", "more: iql"):
        with pytest.raises(UsageError, match=r"mine.yaml: more"):
            load_suite(write(tmp_path, f"tasks: [hopper-medium]\nagents: [td3_bc]\n{key}"))


def test_shipped_budgets() -> None:
    budgets = load_budgets()
    assert list(budgets) == ["smoke", "quick", "standard", "full"]
    assert budgets["quick"].updates == 20_000
    assert budgets["quick"].seeds == 3
    assert [name for name, budget in budgets.items() if budget.meaningless] == ["smoke"]


def test_labels_with_settings(tmp_path: Path) -> None:
    suite = load_suite(
        write(
            tmp_path,
            "tasks: [hopper-medium]\nagents: {bc: , a1: {agent: td3_bc, config: {alpha: 1}}}",
        )
    )
    assert suite.arms["bc"].agent == "bc"
    assert suite.arms["a1"].agent == "td3_bc"
    assert suite.arms["a1"].config == {"alpha": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "tasks: [hopper-medum]\nagents: [bc]",
            ["tasks[0]", "hopper-medum", 'mean "hopper-medium"'],
        ),
        ("tasks: [hopper-medium, hopper-medium]\nagents: [bc]", ["tasks[1]", "twice"]),
        ("tasks: hopper-medium\nagents: [bc]", ["tasks must be a list", "hopper-medium"]),
        ("tasks: []\nagents: [bc]", ["tasks is empty"]),
        ("agents: [bc]", ['"tasks" is missing']),
        ("tasks: [hopper-medium]", ['"agents" is missing']),
        (GOOD + "budgt: quick", ["budgt", 'mean "budget"']),
        (GOOD + "budget: quik", ["budget", "quik", 'mean "quick"']),
        (GOOD + "budgets: {b: {updates: many, seeds: 1}}", ["budgets.b", "missing"]),
        (
            GOOD + "budgets: {b: {updates: many, seeds: 1, evaluations: 1, "
            "evaluation_episodes: 1, final_episodes: 1}}",
            ["budgets.b: updates must be int", "many"],
        ),
        (
            GOOD + "budgets: {b: {updates: 5, seeds: 0, evaluations: 1, "
            "evaluation_episodes: 1, final_episodes: 1}}",
            ["budgets.b", "seeds must be at least 1"],
        ),
        (
            GOOD + "budgets: {b: {updates: 5, seeds: true, evaluations: 1, "
            "evaluation_episodes: 1, final_episodes: 1}}",
            ["budgets.b: seeds must be int", "true"],
        ),
        (
            "tasks: [hopper-medium]\nagents: {bc: {confg: {}}}",
            ["agents.bc", "confg", 'mean "config"'],
        ),
        (
            "tasks: [hopper-medium]\nagents: {td3_bc: {alpha: 1.0}}",
            ['agents.td3_bc: unknown key "alpha"', 'stand under "config"'],
        ),
        ("tasks: [hopper-medium]\nagents: {bc: 3}", ["agents.bc", "mapping"]),
        ("tasks: [hopper-medium]\nagents: [3]", ["agents[0]", "name"]),
        ("tasks: [hopper-medium]\nagents: [bc, bc]", ["agents[1]", "twice"]),
        ("tasks: [hopper-medium]\nagents: {'../x': {agent: bc}}", ["label", "../x"]),
        (
            "tasks: [hopper-medium]\nagents: {bc: {phases: [{name: online, source: replay}]}}",
            ["phases[0]", "without environment steps"],
        ),
        (
            "tasks: [hopper-medium]\nagents: {bc: {phases: [{name: a, updates: 2.0}]}}",
            ["phases[0]", "share"],
        ),
        ("tasks: [hopper-medium\nagents: [bc]", ["line 2"]),
        ("just words", ["mapping", "tasks", "agents"]),
        ("!!python/object/apply:os.system [true]", ["mine.yaml", "line 1"]),
    ],
)
def test_mistakes_name_file_key_and_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load_suite(write(tmp_path, text))
    message = str(caught.value)
    assert "mine.yaml" in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mujoco_al"], ["unknown suite", 'mean "mujoco_all"']),
        (["nowhere/mine.yaml"], ["nowhere/mine.yaml", "not there"]),
        (["core3", "--budget", "quikc"], ["unknown budget", 'mean "quick"']),
        (["core3", "--agents", "td3bc"], ["--agents", "unknown agent", 'mean "td3_bc"']),
        (["core3", "--agents", "random"], ["unknown agent"]),
        (["core3", "--tasks", "hoper-*"], ["--tasks", "unknown task"]),
        (["core3", "--source", "locale"], ["unknown source", 'mean "local"']),
        (["core3", "--seeds", "0"], ["--seeds"]),
        (["core3", "--jobs", "0"], ["--jobs"]),
        (["core3", "--stack", "-1"], ["--stack"]),
        (["core3", "--device", "gpu"], ["--device", "unknown device", 'mean "cuda"']),
        (["core3", "--tasks", "hopper-medium"], ["not in this suite", "hopper-medium-replay"]),
        (["core3", "--tasks", "Hopper-Medium-v2"], ['"Hopper-Medium-v2"', "called hopper-medium"]),
        (["core3", "--agents", "TD3_BC"], ['mean "td3_bc"']),
        (["core3", "--tasks", "a.npz", "--source", "local"], ["a.npz", "leave --source out"]),
        (["core3", "--tasks", "logs.pkl"], ["logs.pkl", ".npz, .h5 or .hdf5, not .pkl"]),
        (["core3", "--plugin", "not_there.py"], ["not_there.py", "not there"]),
        (["core3", "--set", "alpha=1"], ["agent.key=value"]),
        (["core3", "--set", "td3bc.alpha=1"], ["no agent of this run", 'mean "td3_bc"']),
        (
            ["core3", "--set", "td3_bc.alpha=1", "--agents", "bc"],
            ['no agent of this run is called "td3_bc" (known: bc)'],
        ),
        (["core3", "--set", "td3_bc.alhpa=1"], ["--set td3_bc: unknown key", 'mean "alpha"']),
        (["core3", "--set", "td3_bc.batch_size=0"], ["--set td3_bc: batch_size must be at least"]),
        (["core3", "--set", "td3_bc.alpha=high"], ["alpha must be float", "high"]),
        (["core3", "--set", "td3_bc.policy_delay=1.5"], ["policy_delay must be int"]),
        ([], ["name a suite"]),
        (["core3", "--status"], ["plan.json", "no such plan", "core3 has not run at budget quick"]),
        (["core3", "--report", "--budget", "quikc"], ["unknown budget"]),
    ],
)
def test_command_line_mistakes(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_names_that_are_taken_are_refused(tmp_path: Path) -> None:
    text = "tasks: [hopper-medium]\nagents: [bc]\n"
    (tmp_path / "core3.yml").write_text(text)
    with pytest.raises(UsageError, match="suite called core3 comes with the package"):
        load_suite(str(tmp_path / "core3.yml"))
    assert load_suite(str(shipped()["core3"])).name == "core3"
    path = write(tmp_path, "tasks: [hopper-medium]\nagents: {td3_bc: {agent: iql}}")
    with pytest.raises(UsageError, match='"td3_bc" is the name of another agent than iql'):
        make_plan(Options(path, out=tmp_path / "runs", device="cpu"))


def test_a_budget_of_a_usual_name_and_other_numbers_is_told(tmp_path: Path) -> None:
    numbers = "updates: 5, seeds: 1, evaluations: 1, evaluation_episodes: 1, final_episodes: 1"
    path = write(tmp_path, GOOD + f"budgets: {{quick: {{{numbers}}}}}")
    remarks = make_plan(Options(path, out=tmp_path / "runs", device="cpu")).remarks
    assert remarks == ["Budget quick is this suite's own, not the usual one."]
    assert not make_plan(Options("core3", out=tmp_path / "runs", device="cpu")).remarks


def test_brackets_are_text(tmp_path: Path) -> None:
    screen = Console(file=io.StringIO(), width=200)
    path = write(tmp_path, "title: My [paper] suite\ntasks: [hopper-medium]\nagents: [bc]\n")
    plan = make_plan(Options(path, out=tmp_path / "runs", device="cpu"))
    plan.tasks[0]["missing"] = "needs minari; pip install -e '.[minari]'"
    print_plan(screen, plan)
    shown = cast("io.StringIO", screen.file).getvalue()
    assert "My [paper] suite" in shown
    assert ".[minari]" in shown


@pytest.mark.usefixtures("hastened")
def test_unwritable_output_is_one_sentence(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert main([str(manifest), "--out", str(blocked / "runs")]) == 2
    assert "cannot write there" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    for name in (
        "mujoco_all ",
        "fastq_decomposition ",
        "smoke",
        "td3_bc",
        "ad_rl (ad_bcq)",
        "local",
    ):
        assert name in shown
