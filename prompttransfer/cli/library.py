"""`transfer --from-library`: the sources of a library that are most like a target, tried or mixed, beside scratch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import UserError

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.adaptations.starts import Retrieve
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.distributed.placement import Placement
    from prompttransfer.transfers.library import LibraryTransfer
    from tasks.task import Task

MARKER = "library.json"
FILES = (MARKER, "library.csv", "prompts", "settings.json")
"""What the folder of such a transfer holds of ours; all else in it is the user's and stays."""
WITHOUT = (
    "predictions",
    "tune",
    "distil",
    "distil_weight",
    "method",
    "other_layout",
    "random_draws",
    "in_context",
    "draws",
)
"""Options of `transfer` that are about matrices of sources."""
RECIPE = ("steps", "batch", "lr", "optimizer", "schedule", "warm_up", "evaluate_every", "patience")


def library_start(folder: Path, top: str | None, by: str | None) -> Retrieve:
    """What `--from-library DIR --retrieve top-3 --by C_average` asks for. Raises UserError."""
    from prompttransfer.adaptations.starts import Retrieve

    found = re.fullmatch(r"(?:top-)?(\d{1,6})", top or "top-3")
    if found is None:
        raise UserError(f"--retrieve {top}: write how many sources to take, as in --retrieve top-3")
    return Retrieve(folder, int(found[1]), by or "")


def check_sources(given: Mapping[str, Any]) -> None:
    """Raise UserError where options do not go together, before anything is read."""
    if not given["to"]:
        raise UserError("no target given: name one task at least with --to")
    if given["from_library"] is None:
        only = ("retrieve", "by", "how", "target_prompt", "all_steps")
        named = [name for name in only if given[name] is not None]
        if named:
            raise UserError(
                f"--{named[0].replace('_', '-')} is about --from-library: name a folder of sources with it"
            )
        if not given["sources"]:
            raise UserError("no source given: name prompt folders, or a folder of them with --from-library")
        return
    if given["sources"]:
        raise UserError("--from-library is the folder of sources: leave other sources out")
    named = [name for name in WITHOUT if given[name] not in (None, False)]
    named += ["calibrate"] if given["calibrate"] != "none" else []
    if named:
        raise UserError(
            f"--{named[0].replace('_', '-')} is about a matrix of sources: leave it out with --from-library"
        )
    if given["target_prompt"] is not None and len(given["to"]) > 1:
        raise UserError("--target-prompt is of one task: give one task with --to")


def transfer_from_library(verb: Callable[..., Any], given: dict[str, Any]) -> LibraryTransfer:
    """What `transfer` (the `verb`) does where a library is named; `given` are its options."""
    from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation
    from prompttransfer.backbones.locating import locate
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.cli.data import data_options, where_given
    from prompttransfer.distributed.launching import must_start, run_on
    from prompttransfer.distributed.placement import Placement
    from prompttransfer.files import check_free
    from prompttransfer.outputs import settings_of
    from prompttransfer.training.recipes import check_warm_up
    from prompttransfer.transfers.retrieval import check_retrieve

    start = library_start(given["from_library"], given["retrieve"], given["by"])
    check_retrieve(start)
    check_warm_up(given["warm_up"], given["steps"])
    first = load_adaptation(find_adaptations(start.folder)[0])
    own = None if given["target_prompt"] is None else load_adaptation(given["target_prompt"])
    tasks = data_options(given).tasks(given["to"], [first])
    if own is not None and own.task != tasks[0].name:
        raise UserError(f"--target-prompt {own.name!r} was trained on {own.task}, not on {tasks[0].name}")
    at = locate(given["backbone"] or first.backbone, given["revision"])[1]
    settings = settings_of("transfer", where_given(given, "head")) | {"backbone revision": at}
    output, quiet = given["output"], given["as_json"]
    if output is not None:
        check_free(output, marker=MARKER)
        if not given["overwrite"] and (there := finished(output, settings)) is not None:
            print_json(record_of(there)) if quiet else print_library(there)
            say(
                f"made before with the same settings, nothing is left to do; all of it is in {output}",
                quiet=quiet,
            )
            return there
    placement = Placement(given["devices"], given["strategy"], given["nodes"])
    if must_start(placement, given["device"]):
        return run_on(placement, verb, **given)
    return _run(verb, given, start, first, own, tasks, settings, placement)


def _run(
    verb: Callable[..., Any],
    given: dict[str, Any],
    start: Retrieve,
    first: Adaptation,
    own: Adaptation | None,
    tasks: Sequence[Task],
    settings: dict[str, Any],
    placement: Placement,
) -> LibraryTransfer:
    """Load, train, write and print; everything that could be told before has been."""
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.common import (
        console,
        only_the_first_speaks,
        print_json,
        say,
        seeds_line,
    )
    from prompttransfer.cli.data import data_options, rows_of_sources
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.values import lines_of
    from prompttransfer.training.progress import TrainingProgress
    from prompttransfer.training.recipes import recipe_for
    from prompttransfer.training.train import TrainingOptions
    from prompttransfer.transfers.library import from_library, runs_of

    quiet, output = given["as_json"], given["output"]
    seeds = list(dict.fromkeys(given["seeds"] or [0]))
    targets = data_options(given).targets(tasks, seeds)
    model = backbone_of(
        [first], given["backbone"], given["precision"], given["device"], placement, revision=given["revision"]
    )
    model.takes_any = given["other_backbone"]
    speaks = only_the_first_speaks(model)
    encoding = Encoding(
        first.layout,
        given["max_length"],
        given["aggregation"],
        lines_of(given["template"]) or first.encoding.template,
    )
    method = first.method
    recipe = recipe_for(model, method, **{name: given[name] for name in RECIPE})
    say(f"recipe: {recipe.told(method)}", quiet=quiet)
    say(seeds_line(seeds, one_split=given["one_split"], shots=given["shots"]), quiet=quiet)
    names = runs_of([task.name for task in tasks], seeds, start.top, given["how"] or "best")
    with TrainingProgress(console, names, recipe.steps) as progress:
        options = TrainingOptions(
            state_folder=None if output is None else output.parent, progress=None if quiet else progress
        )
        found = from_library(
            model,
            start,
            targets,
            recipe,
            encoding,
            method,
            seeds=seeds,
            how=given["how"] or "best",
            all_steps=given["all_steps"] is not False,
            given=own,
            rows_of=rows_of_sources(given["data"]),
            options=options,
            tell=lambda line: say(line, quiet=quiet),
        )
    if speaks:
        if output is not None:
            _write(output, found, settings, verb, given, model)
        options.clear()
        if quiet:
            print_json(record_of(found))
        else:
            print_library(found)
            if output is not None:
                say(f"written to {output}: " + ", ".join(sorted(p.name for p in output.iterdir())))
    return found


def _write(
    output: Path,
    found: LibraryTransfer,
    settings: dict[str, Any],
    verb: Callable[..., Any],
    given: dict[str, Any],
    model: Backbone,
) -> None:
    from prompttransfer.adaptations.artifacts import save_adaptation
    from prompttransfer.files import atomic_folder, write_json, write_text
    from prompttransfer.outputs import SETTINGS, keep_others, plain
    from prompttransfer.reports.calls import commit_of, note_call, precision_name, recipe_options, remember

    with atomic_folder(output, marker=MARKER) as folder:
        write_json(folder / MARKER, record_of(found))
        write_text(folder / "library.csv", found.to_csv())
        for run in found.trained:
            save_adaptation(run.adaptation, folder / "prompts" / run.adaptation.name)
        write_json(folder / SETTINGS, plain(settings))
        call = remember(
            "transfer",
            verb,
            given,
            **recipe_options(found.trained[0].adaptation.settings),
            revision=commit_of(model.revision),
            precision=precision_name(model.precision),
        )
        note_call([folder / MARKER], call)
        keep_others(output, folder, FILES)


def record_of(found: LibraryTransfer) -> dict[str, Any]:
    """What `library.json` says."""
    from dataclasses import asdict

    return {
        "summary": found.summary(),
        "outcomes": [asdict(each) for each in found.outcomes],
        "retrieved": [asdict(each) for each in found.retrieved],
    }


def finished(output: Path, settings: dict[str, Any]) -> LibraryTransfer | None:
    """What lies in `output`, if it was made with these settings; None if there is nothing. Raises UserError for others."""
    from prompttransfer.outputs import check_same, settings_in
    from prompttransfer.transfers.library import Choice, LibraryTransfer, Outcome
    from tasks.documents import read_json_object

    if not (output / MARKER).exists():
        return None
    check_same(output, settings_in(output), settings, what="a finished transfer")
    record = read_json_object(output / MARKER, "transfer from a library")
    try:
        outcomes = tuple(Outcome(**each) for each in record["outcomes"])
        return LibraryTransfer(outcomes, tuple(Choice(**each) for each in record["retrieved"]))
    except (KeyError, TypeError):
        raise UserError(
            f"{output / MARKER} was changed after it was written: make it again with --overwrite"
        ) from None


def print_library(found: LibraryTransfer) -> None:
    """What was retrieved, and every way beside training from scratch."""
    from prompttransfer.cli.common import number, say, table

    for choice in found.retrieved:
        say(str(choice))
    rows = [
        [
            each["target"],
            each["way"],
            number(each["validation"]),
            number(each["test"]),
            number(each["spread"]),
            *(f"{each[name]:,}" for name in ("steps", "target_steps", "all_steps")),
        ]
        for each in found.summary()
    ]
    table(
        f"\ntransfer from a library (k = {len(found.retrieved[0].sources)}) beside training from scratch",
        ["target", "way", "validation", "test", "sd", "steps a run", "on the target", "in all"],
        rows,
        left=2,
    )
    seeds = {each.seed for each in found.outcomes}
    say(
        f"test: mean over {len(seeds)} seed{'s' * (len(seeds) > 1)}; sd over seeds; steps of all runs and probes on the target,"
    )
    say("and in all with those of training every source that was ranked")
    if len(seeds) == 1:
        say("one seed: differences here are not evidence; give --seeds 0 1 2 for a spread")
