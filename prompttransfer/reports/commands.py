"""The commands on the report page that run everything again, as they were kept beside what they wrote (reports/calls.py).

What was made before commands were kept, or by Python calls, is put together from what the files say of themselves; the
page then says that this may not be all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.artifacts import holds_one, load_adaptation
from prompttransfer.adaptations.starts import source_of
from prompttransfer.reports.calls import Call, commit_of, precision_name, read_calls, recipe_options
from prompttransfer.reports.run_folder import RunFolder, TransferRecord
from prompttransfer.transfers.indicators import INDICATORS

_CARRYING = ("project apply", "project distil")
"""What makes prompts of other prompts, and so comes behind them."""
_ORDER = ("compare", "neurons capture", "neurons overlap")


def commands(
    folder: RunFolder,
    record: TransferRecord,
    prompts: Mapping[Path, Adaptation],
    again: Call,
    notes: list[str],
) -> tuple[str, ...]:
    """The commands that run it again, in an order in which they can be run; `prompts` are all of the run, by folder.

    `again` is the call that writes the page. A note is added where a command had to be put together.
    """
    transfer = _kept(folder.matrix)
    if transfer is not None and transfer.verb.startswith("study"):
        return (transfer.line(), *_after_study(transfer))
    guessed: list[str] = []
    prompts = {**prompts, **_sources_elsewhere(transfer, prompts)}
    made = _prompt_calls(prompts, guessed)
    calls = [call for call in made if call.verb not in _CARRYING]
    fits = {path: _kept(path / "projector.json") for path in folder.projectors}
    calls += [call.with_options(output=path) for path, call in fits.items() if call is not None]
    calls += [call for call in made if call.verb in _CARRYING]
    if transfer is None:
        transfer = _guessed_transfer(folder, record)
        guessed.append("the transfer")
    calls.append(_placed(transfer, folder.matrix.parent, "sources", folder.prompts))
    calls += _indicator_calls(folder, guessed)
    calls += [call.with_options(output=path) for path in folder.masking if (call := _kept(path)) is not None]
    if guessed:
        notes.append(
            f"How {', '.join(guessed)} came about was not kept beside the files: those commands hold what the files say, "
            "without --data, --limit-train, --limit-test and the files of own tasks."
        )
    return tuple(dict.fromkeys(call.line() for call in [*calls, again]))


def _after_study(run: Call) -> list[str]:
    output = run.options.get("output")
    return [Call(verb="study report", options={"folder": output}).line()] if output else []


def _kept(path: Path) -> Call | None:
    """The call that wrote a file or folder, if it was kept."""
    return read_calls(path.parent).get(path.name)


def _sources_elsewhere(transfer: Call | None, prompts: Mapping[Path, Adaptation]) -> dict[Path, Adaptation]:
    """The source prompts of a matrix that lie outside of the run's folder, as far as they are still there."""
    sources = transfer.options.get("sources", []) if transfer is not None else []
    here = {os.path.abspath(path) for path in prompts}
    folders = [Path(str(source)) for source in (sources if isinstance(sources, list) else [sources])]
    found = [path for folder in folders for path in (folder, *sorted(folder.glob("*"))) if holds_one(path)]
    return {path: load_adaptation(path) for path in found if os.path.abspath(path) not in here}


def _prompt_calls(prompts: Mapping[Path, Adaptation], guessed: list[str]) -> list[Call]:
    """One call for all prompts that it made; those that start from another prompt come last."""
    calls: dict[str, Call] = {}
    unknown: dict[tuple[str, ...], list[tuple[Path, Adaptation]]] = {}
    for path, prompt in prompts.items():
        call = _kept(path)
        if call is not None:
            call = call.with_options(output=path.parent)
            calls[call.line()] = call
        elif "steps" in prompt.settings:
            key = (
                str(path.parent),
                prompt.backbone,
                prompt.revision,
                str(prompt.method),
                prompt.origin.start,
                prompt.layout,
                *map(str, _recipe(prompt).items()),
            )
            unknown.setdefault(key, []).append((path, prompt))
    if unknown:
        guessed.append("the training of prompts")
    found = [*calls.values(), *map(_guessed_train, unknown.values())]
    return sorted(found, key=lambda call: source_of(str(call.options.get("init", ""))) is not None)


def _recipe(prompt: Adaptation) -> dict[str, object]:
    """The options of `train` that the settings of a prompt hold."""
    settings = prompt.settings
    known = {
        **recipe_options(settings),
        **{name: settings.get(name) for name in ("max_length", "aggregation")},
    }
    known["precision"] = precision_name(settings["precision"]) if "precision" in settings else None
    return {name: value for name, value in known.items() if value is not None}


def _guessed_train(group: Sequence[tuple[Path, Adaptation]]) -> Call:
    path, first = group[0]
    options = {
        "task": _unique(p.task for _, p in group),
        "backbone": first.backbone,
        "revision": commit_of(first.revision),
        "method": None if first.method.name == "prompt" else str(first.method),
        "init": first.origin.start,
        "layout": first.layout,
        **_recipe(first),
        "output": path.parent,
        "seeds": list(dict.fromkeys(p.seed or 0 for _, p in group)),
    }
    return Call(verb="train").with_options(**options)


def _guessed_transfer(folder: RunFolder, record: TransferRecord) -> Call:
    places: list[Path | str] = list(dict.fromkeys(path.parent for path in folder.prompts))
    tuned = {"tune": True, "seeds": sorted({pair.seed for pair in record.tuned})} if record.tuned else {}
    done = record.calibrated.calibration if record.calibrated is not None else ""
    kind = {"calibrate": done.split(",")[0]} if done else {}
    return Call(verb="transfer").with_options(
        sources=places or ["PROMPTS"], to=record.raw.targets, **tuned, **kind
    )


def _placed(call: Call, output: Path, inputs: str, prompts: Iterable[Path]) -> Call:
    """The call with its output where it lies now, and with inputs that are there: the run's prompts if its own have gone."""
    given = call.options.get(inputs, [])
    there = all(Path(str(path)).exists() for path in (given if isinstance(given, list) else [given]))
    places = list(dict.fromkeys(path.parent for path in prompts))
    changed = {} if there or not places else {inputs: places}
    return call.with_options(output=output, **changed)


def _indicator_calls(folder: RunFolder, guessed: list[str]) -> list[Call]:
    """How indicators and neuron states were made: states before their overlaps."""
    calls = [
        _placed(call, path, "prompts", folder.prompts) for path in folder.states if (call := _kept(path))
    ]
    unknown_states = [path for path in folder.states if _kept(path) is None]
    places: list[Path | str] = list(dict.fromkeys(path.parent for path in folder.prompts)) or ["PROMPTS"]
    for path in unknown_states:
        calls.append(Call(verb="neurons capture").with_options(prompts=places, output=path))
        calls.append(Call(verb="neurons overlap").with_options(files=[path], output=path.parent))
    unknown: dict[Path, list[str]] = {}
    for path in (*folder.indicators.values(), *folder.layer_files):
        call, metric = _kept(path), path.stem.removeprefix("similarity_")
        if call is not None:
            calls.append(_placed(call, path.parent, "prompts", folder.prompts))
        elif metric in INDICATORS and path.parent not in {states.parent for states in unknown_states}:
            unknown.setdefault(path.parent, []).append(metric)
    for output, metrics in unknown.items():
        calls.append(Call(verb="compare").with_options(prompts=places, metric=metrics, output=output))
    if unknown_states or unknown:
        guessed.append("some indicators")
    return sorted(calls, key=lambda call: _ORDER.index(call.verb) if call.verb in _ORDER else len(_ORDER))


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
