"""What `transfer` prints: matrices, runs from sources beside runs from scratch, and what is to be known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.transfers.distilled_pairs import DistilledPair
    from prompttransfer.transfers.matrix import TransferMatrix
    from prompttransfer.transfers.speedups import Range
    from prompttransfer.transfers.tuned_pairs import TunedPair
    from prompttransfer.transfers.zero_shot import Target


def print_transfer(
    matrix: TransferMatrix,
    pairs: Sequence[TunedPair],
    distilled: Sequence[DistilledPair],
    notes: Sequence[str],
    kind: str,
) -> None:
    """All that came of a transfer, whether it was made now or before; `notes` are `seen_lines`."""
    from prompttransfer.cli.common import say

    print_matrix(matrix)
    if matrix.calibrated is not None:
        print_matrix(matrix.calibrated, f"zero-shot transfer, calibrated ({matrix.calibration})")
    if pairs:
        print_pairs(pairs, kind)
    for line in notes:
        say(line)
    if distilled:
        print_distilled(distilled)


def print_matrix(matrix: TransferMatrix, title: str = "zero-shot transfer") -> None:
    """The matrix in per cent, with the reference rows beneath and how far random prompts lie apart."""
    from prompttransfer.cli.common import say, table
    from prompttransfer.transfers.matrix import IN_CONTEXT, RANDOM_PROMPT, RANDOM_ROWS

    shared = "microworld-" if all(name.startswith("microworld-") for name in matrix.targets) else ""
    rows = []
    for name, row in zip(matrix.sources, matrix.values.tolist(), strict=True):
        rows.append([name.removeprefix(shared), *map(_per_cent, row)])
        if name in RANDOM_ROWS and matrix.random_draws:
            rows.append(["  its spread", *map(_per_cent, matrix.random_spread)])
        if name == IN_CONTEXT and matrix.in_context:
            rows.append(["  its spread", *map(_per_cent, matrix.in_context_spread)])
    rows_are = "source prompts" if RANDOM_PROMPT in matrix.sources else "sources"
    table(
        f"{title}, per cent (rows: {rows_are}, columns: target tasks"
        + (f"; {shared!r} left out of the names)" if shared else ")"),
        ["", *(name.removeprefix(shared) for name in matrix.targets)],
        rows,
    )
    if seeds := _seed_rows(matrix):
        table(
            "the same, mean over the prompts of a source task ± standard deviation",
            ["", *(name.removeprefix(shared) for name in matrix.targets)],
            [[name.removeprefix(shared), *cells] for name, *cells in seeds],
        )
    for line in impossible_lines(matrix):
        say(line)
    if matrix.random_draws:
        say(
            f"{next(n for n in matrix.sources if n in RANDOM_ROWS)}: mean and standard deviation of {matrix.random_draws} draws, each with random directions "
            "at the norms of one source's vectors"
        )
    if matrix.in_context:
        say(f"in-context: {matrix.in_context}; mean and standard deviation")
    if matrix.headed:
        said = ", ".join(matrix.headed)
        say(
            f"{said}: answered by a trained head, so there is nothing without one, and nothing to calibrate; random ones have the "
            f"sources' heads"
        )
    if matrix.written:
        say(f"calibrated: none for {', '.join(matrix.written)}, whose answer is written")


def impossible_lines(matrix: TransferMatrix) -> list[str]:
    """Why there are dashes in a matrix, each reason once with the cells that it holds for."""
    from prompttransfer.cli.common import few

    cells: dict[str, list[str]] = {}
    for source, targets in matrix.impossible_cells.items():
        for target, reason in targets.items():
            cells.setdefault(reason, []).append(f"{source} on {target}")
    columns = [f"{target}: {reason}" for target, reason in matrix.impossible.items()]
    return [*columns, *(f"{few(found, 4)}: {reason}" for reason, found in cells.items())]


def _per_cent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.1f}"


def _times(pair: TunedPair, found: Range | None, *, never: bool = False) -> str:
    """What is known of a speed-up, or why there is none, for people."""
    return pair.outcome if found is None else f"{found}{' (never)' * never}"


def kind_of_start(prompts: Sequence[Adaptation]) -> str:
    """The paper's name for the run: TPT_model where every source was carried from another model, else TPT_task."""
    carried = [prompt.origin.start.startswith("projected:") for prompt in prompts]
    return "TPT_model" if all(carried) else "TPT_task"


def print_pairs(pairs: Sequence[TunedPair], kind: str = "TPT_task") -> None:
    """Transfer as initialisation beside training from scratch."""
    from prompttransfer.cli.common import number, say, table

    rows = [
        [
            pair.source,
            pair.target,
            str(pair.seed),
            number(pair.step0),
            number(pair.tuned),
            number(pair.scratch),
            number(pair.chance),
            str(pair.tuned_steps),
            str(pair.scratch_steps),
            _times(pair, pair.convergence),
            _times(pair, pair.comparable, never=pair.reach_steps is None),
        ]
        for pair in pairs
    ]
    table(
        f"\ntransfer as initialisation ({kind}) beside training from scratch",
        [
            "source",
            "target",
            "seed",
            "step 0 (val.)",
            "test",
            "scratch test",
            "chance",
            "steps",
            "scratch steps",
            "convergence",
            "comparable",
        ],
        rows,
        left=2,
    )
    _print_pair_means(pairs)
    for line in speed_up_lines(pairs):
        say(line)
    if len({pair.seed for pair in pairs}) == 1:
        say("one seed: differences here are not evidence; give --seeds 0 1 2 for a spread")


def _print_pair_means(pairs: Sequence[TunedPair]) -> None:
    """Mean and spread over seeds of each source and target; nothing where each has one seed."""
    from statistics import fmean, stdev

    from prompttransfer.cli.common import number, table

    groups: dict[tuple[str, str], list[TunedPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.source, pair.target), []).append(pair)
    rows = []
    for (source, target), group in groups.items():
        if len(group) < 2:
            continue
        gains = [pair.tuned - pair.scratch for pair in group]
        tuned, scratch = [pair.tuned for pair in group], [pair.scratch for pair in group]
        values = (fmean(tuned), stdev(tuned), fmean(scratch), stdev(scratch), fmean(gains), stdev(gains))
        rows.append([source, target, str(len(group)), *map(number, values)])
    if rows:
        columns = ["source", "target", "seeds", "test", "spread", "scratch test", "spread", "gain", "spread"]
        table("mean over seeds (spread: standard deviation)", columns, rows, left=2)


def _seed_rows(matrix: TransferMatrix) -> list[list[str]]:
    """Rows of the source tasks that have several sources of one method, as those of several seeds: mean ± deviation."""
    from statistics import mean, stdev

    from prompttransfer.transfers.matrix import REFERENCE_ROWS

    groups: dict[tuple[str, str], list[list[float]]] = {}
    count = len(matrix.sources)
    methods = [*matrix.methods[:count], *[""] * (count - len(matrix.methods))]
    for name, task, row, method in zip(
        matrix.sources, matrix.source_tasks, matrix.values.tolist(), methods, strict=True
    ):
        if name not in REFERENCE_ROWS:
            groups.setdefault((task, method), []).append(row)
    several = len({method for _, method in groups}) > 1
    rows = []
    for (task, method), group in groups.items():
        if len(group) < 2:
            continue
        cells = []
        for column in zip(*group, strict=True):
            known = [value for value in column if value == value]
            spread = f" ±{100 * stdev(known):.1f}" if len(known) > 1 else ""
            cells.append(f"{100 * mean(known):.1f}{spread}" if known else "-")
        rows.append([f"{task}, {method}" if several and method else task, *cells])
    return rows


def print_distilled(pairs: Sequence[DistilledPair]) -> None:
    """Teachers beside starts: the same targets from scratch, from the source, and from scratch with a teacher."""
    from prompttransfer.cli.common import number, say, table

    rows = [
        [
            pair.source,
            pair.target,
            str(pair.seed),
            "-" if pair.similarity is None else number(pair.similarity),
            f"{pair.weight:.4f}",
            *map(number, (pair.chance, pair.scratch, pair.transferred, pair.distilled)),
            f"{pair.scratch_steps} / {pair.transferred_steps} / {pair.distilled_steps}",
            " / ".join("?" if steps is None else str(steps) for steps in pair.all_steps),
        ]
        for pair in pairs
    ]
    table(
        "\ndistilled from what was tuned from the source (PANDA), beside it and training from scratch: test scores",
        [
            "source",
            "target",
            "seed",
            "similarity",
            "weight",
            "chance",
            "scratch",
            "TPT_task",
            "distilled",
            "target steps",
            "all steps",
        ],
        rows,
        left=2,
    )
    mean = [
        sum(getattr(pair, name) for pair in pairs) / len(pairs)
        for name in ("scratch", "transferred", "distilled")
    ]
    won = [
        sum(pair.distilled > getattr(pair, other) for pair in pairs) for other in ("transferred", "scratch")
    ]
    say(
        f"means over {len(pairs)} runs: scratch {mean[0]:.3f}, TPT_task {mean[1]:.3f}, distilled {mean[2]:.3f}; distilled is above "
        f"TPT_task in {won[0]} of them and above scratch in {won[1]}"
    )
    say(
        "steps are those of scratch / TPT_task / distilled; all of them count the source's and the teacher's own"
    )


def speed_up_lines(pairs: Sequence[TunedPair]) -> list[str]:
    """What the speed-ups of all pairs come down to; pairs that have none are counted, not left out in silence."""
    from prompttransfer.transfers.speedups import median_range
    from prompttransfer.transfers.tuned_pairs import DID_NOT_LEARN, NOTHING_TO_LEARN

    counted = [pair for pair in pairs if pair.outcome != NOTHING_TO_LEARN]
    learned = [pair.convergence for pair in counted if pair.convergence is not None]
    flat = sum(pair.outcome == DID_NOT_LEARN for pair in counted)
    reached = sum(pair.reach_steps is not None for pair in counted)
    comparable = [pair.comparable for pair in counted if pair.comparable is not None]
    lines = [
        f"convergence: median {median_range(learned) or '-'} over {len(learned)} of {len(counted)} runs, {flat} did not "
        "learn; scratch steps over steps, each to 99 % of the run's own best validation score",
        f"comparable: median {median_range(comparable) or '-'} over {len(counted)} runs, {reached} of which reached it; "
        "scratch steps over steps, both to 99 % of the best validation score from scratch",
        "ranges, because a run is looked at every "
        f"{pairs[0].evaluate_every} steps only; a run learned if its best is at least 99 % of that from scratch",
    ]
    if left_out := len(pairs) - len(counted):
        lines.append(f"{left_out} of {len(pairs)} runs are not in the medians: scratch learned nothing there")
    return lines


def seen_lines(prompts: Sequence[Adaptation], targets: Sequence[Target], seeds: Sequence[int]) -> list[str]:
    """What to know where a source was trained on rows that validate a run: on the same task with another split."""
    seen = [
        f"{prompt.name} on seed {seed}"
        for prompt in prompts
        for target in targets
        for seed in seeds
        if prompt.task == target.task.name
        and prompt.origin.data.get("split_seed", 0) != target.rows(seed).seed
    ]
    if not seen:
        return []
    started = "a prompt" if all(prompt.has_vectors for prompt in prompts) else "a source"
    return [
        f"{len(seen)} runs start from {started} of the same task with another split ({seen[0]}, ...), which has learned "
        "from some of their validation rows: their steps and speed-ups are too good, their test scores are not"
    ]
