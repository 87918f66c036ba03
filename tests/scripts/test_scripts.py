"""Every script runs on its smallest setting, takes what the pages give it, and is in one of the lists here.

All run in this process, so that torch is imported and the embedded world is read once. What a script prints is not looked at
but for its being there: numbers are of long runs. Types are mypy's (pyproject.toml), which also holds what only a long
run reaches.
"""

from __future__ import annotations

import argparse
import importlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

WORKER = '--worker {"contestant":"CONTESTANT","model":"MODEL","precision":"fp32","length":4,"batch":2}'
RUN: dict[str, tuple[str, ...]] = {
    "benchmark": (
        "--only matrix --quick",
        *(
            WORKER.replace("CONTESTANT", contestant).replace("MODEL", model)
            for contestant, model in (("ours", "roberta-tiny"), ("ours", "t5-tiny"), ("peft-fair", "roberta-tiny"))
        ),
    ),
    "benchmark_decoders": ("--only engines --backbone microworld-roberta --precision fp32 --times 1 --clock wall",),
    "cost_of_study": ("demo",),
    "make_microworld": ("microworld-roberta --output OUT/made --steps 1 --batch 2 --probe-rows 2",),
    "measure_banks": ("prompt --batch 1 --members 2 --rounds 1",),
    "measure_calibration": ("--draws 2 --limit-test 2 --backbones microworld-t5",),
    "measure_distillation": (
        "panda --sources mnli --targets snli --seeds 0 --rows 8 --test 4 --steps 1 --source-steps 1 --output OUT/panda.csv",
        "mpt --sources mnli sst2 --targets snli --seeds 0 --rows 8 --test 4 --steps 1 --target-steps 1",
    ),
    "measure_masking": ("PROMPTS --draws 1 --rows 4",),
    "measure_methods": ("--peak microworld-roberta prompt",),
    "measure_microworld": ("microworld-roberta --seeds 1 --steps 1 --tasks sst2 imdb --full-seeds 0 --limit-train 8 --limit-test 8 --json OUT/figures.json",),
    "measure_precision": ("--tasks sst2 --seeds 1 --steps 1 --train-rows 8 --test-rows 4 --output OUT/precision",),
    "measure_projectors": (
        "--fitting microworld-imdb --unseen microworld-sst2 --source-prompts PROMPTS --prompts OUT/prompts --prompt-steps 1 "
        "--fit-steps 1 --seeds 0 --limit-train 8 --limit-test 4 --ways 'task linear' combination --output OUT/fits.json",
    ),
    "measure_public_text": (
        "--rates .01 --steps 1 --batch 2 --seeds 0 --text 12 --train 8 --train-steps 1 --test 4",
    ),
    "measure_recommend": ("PROMPTS MATRIX --rows 4 --draws 1 --probe-steps 0",),
    "measure_steps": ("prompt:length=20 lora prompt:length=20@logits --batch 1 --members 2 --rounds 1",),
    "measure_study": ("--cells 6 --folder OUT/tiny",),
    "measure_task_vectors": ("SEEDS --limit-test 4",),
    "search_rates": ("--methods prompt lora --tasks microworld-imdb --rates 1e-3 1e-2 --steps 1 --limit-train 8",),
    "simulate_collapse": ("--repeats 1",),
    "simulate_correlate": ("--repeats 1 --truth 20",),
    "simulate_intervals": ("--repeats 2",),
    "simulate_random_prompts": ("--rows 2 --repeats 1",),
    "simulate_seeds": ("--repeats 2",),
    "simulate_speedups": ("--repeats 2",),
    "simulate_systems": ("--studies 1 --systems 2 --shots 1 --targets 3",),
}  # fmt: skip
"""Script -> arguments of its small runs. What stands in capitals is made by `places`."""

ASKED = {
    "benchmark_neighbour": "nine runs of `train`, each a process of its own, half of them beside a busy core",
}
"""Scripts that are only asked for their `--help` and held against the pages, and why."""

PARTS = {
    "benchmark_contestants": "benchmark",
    "benchmark_levers": "benchmark",
    "benchmark_lora": "benchmark",
    "benchmark_models": "benchmark",
    "benchmark_print": "benchmark",
    "benchmark_rows": "benchmark",
    "benchmark_small": "benchmark",
    "docs_pages": "mkdocs",  # a hook, run by tests/docs/test_project_files.py
    "microworld_lessons": "make_microworld",
    "microworld_looks": "make_microworld",
    "microworld_models": "make_microworld",
    "microworld_optimiser": "make_microworld",
    "microworld_text": "make_microworld",
    "microworld_tokens": "make_microworld",
}
"""Files that are no programs -> what calls them."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What scripts are given: prompts of three tasks, their matrix, and prompts of two seeds."""
    import torch

    from prompttransfer.adaptations.artifacts import save_adaptation
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.training.recipes import recipe_for
    from prompttransfer.training.train import Job, train_adaptations
    from prompttransfer.transfers.zero_shot import Target, zero_shot
    from tasks.catalog import find_task
    from tasks.loading import load_splits

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("scripts")
    backbone = load_backbone("microworld-roberta", precision="fp32", device="cpu")
    tasks = [find_task(f"microworld-{name}") for name in ("imdb", "sst2", "mnli")]
    targets = [Target(task, load_splits(task, limit_train=8, limit_test=4)) for task in tasks]
    jobs = [
        Job(each.task, each.splits, s, name=each.task.name + end)
        for s, end in enumerate(("", "-1"))
        for each in targets
    ]
    made = [
        run.adaptation for run in train_adaptations(backbone, jobs, recipe_for(backbone, steps=1, batch=4))
    ]
    for prompt in made:
        if prompt.seed == 0:
            save_adaptation(prompt, root / "prompts" / prompt.name)
        if prompt.task != "microworld-sst2":
            save_adaptation(prompt, root / "seeds" / prompt.name)
    (root / "matrix.csv").write_text(zero_shot(backbone, made[:3], targets).to_csv(), encoding="utf-8")
    return {
        "PROMPTS": str(root / "prompts"),
        "SEEDS": str(root / "seeds"),
        "MATRIX": str(root / "matrix.csv"),
        "OUT": str(root),
    }


def words_of(arguments: str, places: dict[str, str]) -> list[str]:
    """The arguments with the places put in."""
    words = arguments.split(" ", 1) if arguments.startswith("--worker") else shlex.split(arguments)
    return [re.sub(r"^[A-Z]+(?=$|/)", lambda found: places.get(found[0], found[0]), word) for word in words]


def call(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python scripts/NAME.py WORDS` in this process."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / f"{name}.py"), *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))  # a worker of the benchmark is asked for one step
    importlib.import_module(name).main()


def test_every_script_is_in_one_of_the_lists() -> None:
    listed = [*RUN, *ASKED, *PARTS]
    assert sorted(listed) == sorted(path.stem for path in SCRIPTS.glob("*.py"))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param(name, each, id=f"{name} {place}")
        for name, all_ in RUN.items()
        for place, each in enumerate(all_)
    ],
)
def test_a_script_runs_on_its_smallest_setting(
    name: str, arguments: str, places: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    call(name, words_of(arguments, places), monkeypatch)
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", ASKED)
def test_a_script_that_is_not_run_says_what_it_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(name, ["--help"], monkeypatch)
    assert ended.value.code == 0 and "usage:" in capsys.readouterr().out


COMMAND = re.compile(r"python scripts/(\w+)\.py((?:[^`\n#]|\n(?=[^`\n]*`))*)")
"""In a page: up to a backtick, which may stand in the next line, or to the end of the line."""
STANDS_FOR = {"BACKBONE": "microworld-roberta", "MODEL": "roberta-base"}


def commands() -> dict[str, tuple[str, list[str]]]:
    """Where a page says it -> the script and its arguments; options whose values are left out (`--rates ...`) are, too."""
    found = {}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for said in COMMAND.finditer(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            words = shlex.split(re.sub(r"--[a-z-]+\s+\.\.\.", "", said[2]))
            found[f"{page.name} {said[1]} {len(found)}"] = (said[1], [STANDS_FOR.get(w, w) for w in words])
    return found


class Parsed(Exception):  # noqa: N818
    """The arguments were understood."""


@pytest.mark.parametrize(("name", "words"), commands().values(), ids=commands())
def test_a_script_takes_what_the_pages_give_it(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    with pytest.raises(Parsed):
        call(name, words, monkeypatch)


def test_the_pages_name_commands() -> None:
    assert len(commands()) > 20
