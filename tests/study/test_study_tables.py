"""The statistics of a study from tables made by hand: what few seeds can say, and what has no mean."""

import numpy as np
import pandas as pd
import pytest

from prompttransfer.cli.study_run import print_outcome
from prompttransfer.reports.calls import Call
from prompttransfer.study.results.in_short import headlines, in_short
from prompttransfer.study.results.in_words import p_value
from prompttransfer.study.results.long_table import COLUMNS
from prompttransfer.study.results.outcome import mean_matrices, shown, winners
from prompttransfer.study.results.page import overview, render_page
from prompttransfer.study.results.statistics import (
    COMPARISON_COLUMNS,
    INDICATOR_COLUMNS,
    compare,
    comparisons,
    corrected,
    predictions,
)

TASKS = {f"t{i}": "ab"[i % 2] for i in range(8)}


def results(rows):
    table = pd.DataFrame([{"kind": "score", "backbone": "tiny", "by": "", **row} for row in rows])
    return table.reindex(columns=list(COLUMNS))


def scores(seeds=3, gain=0.2, metrics=None):
    """Every task on every other; prompts of the same type gain, no prompt is at 0.5."""
    rng, rows = np.random.default_rng(0), []
    for target, kind in TASKS.items():
        metric = (metrics or {}).get(target, "accuracy")
        for seed in range(seeds):
            for source, other in TASKS.items():
                same = kind == other
                value = 0.5 + (0.4 if source == target else gain if same else 0.0) + 0.02 * rng.random()
                rows.append(
                    {
                        "source": source,
                        "target": target,
                        "seed": seed,
                        "measure": metric,
                        "value": value,
                        "condition": "own prompt" if source == target else "zero-shot",
                        "relation": "own" if source == target else "same type" if same else "different type",
                    }
                )
            rows.append(
                {"target": target, "seed": seed, "measure": metric, "value": 0.5, "condition": "no prompt"}
            )
    return results(rows)


def wide(values):
    return pd.DataFrame(values, dtype=float)


def test_four_seeds_cannot_come_out_significant_and_say_so():
    first = wide(np.full((8, 4), 0.7) + 0.01 * np.arange(4))
    over_tasks, over_seeds = (
        one.as_row() for one in corrected(list(compare("f", ("m", "prompt"), "n", first, first * 0)))
    )
    assert over_seeds["p"] == over_seeds["smallest_p"] == 0.125
    assert (over_seeds["low"], over_seeds["p_holm"], over_seeds["significant"]) == (None, None, "")
    assert (
        "sign flips of 4 pairs cannot give a p below 0.125, at least 6 pairs are needed" in over_seeds["note"]
    )
    assert over_tasks["significant"] == "yes" and over_tasks["p_holm"] == 2 / 2**8


def test_a_correction_that_no_p_value_survives_is_said():
    first = wide(np.full((6, 2), 0.7) + 0.01 * np.arange(6)[:, None])
    pair = [
        one
        for name in "ab"
        for one in compare("f", ("m", "prompt"), name, first, first * 0)
        if one.over == "tasks"
    ]
    rows = [one.as_row() for one in corrected(pair)]
    for row in rows:
        assert row["p"] == 1 / 32 and row["smallest_p_holm"] == 2 / 32
        assert row["significant"] == "" and "corrected for 2 comparisons, is 0.0625 at least" in row["note"]


def test_one_seed_has_no_p_value():
    first = wide(np.full((8, 1), 0.7))
    (row,) = (one.as_row() for one in corrected(list(compare("f", ("m", "prompt"), "n", first, first * 0))))
    assert row["p"] is None and row["significant"] == "" and "one seed" in row["note"]


def test_an_interval_leaves_out_zero_exactly_where_p_is_at_most_five_per_cent():
    table = comparisons(scores(seeds=7))
    known = table[table["low"].notna() & table["p"].notna()]
    assert len(known)
    outside = (known["low"] > 0) | (known["high"] < 0)
    assert (outside == (known["p"] <= 0.05)).all()
    assert list(table.columns) == list(COMPARISON_COLUMNS)


def test_comparisons_are_within_a_metric():
    table = comparisons(scores(metrics={"t6": "token-f1", "t7": "token-f1"}))
    over_tasks = table[table["over"] == "tasks"].set_index("comparison")
    assert over_tasks.loc["same type minus different type, accuracy", "tasks"] == 6
    assert over_tasks.loc["same type minus different type, token-f1", "tasks"] == 2
    assert "same type minus different type" not in over_tasks.index


def test_the_overview_has_a_mean_a_metric():
    found = overview(scores(metrics={"t7": "token-f1"}))
    none = found[found["condition"] == "no prompt"].set_index("metric")
    assert none["values"].to_dict() == {"accuracy": 21, "token-f1": 3}


def test_the_headline_is_that_transfer_is_below_no_prompt_where_it_is():
    nothing = pd.DataFrame(columns=list(INDICATOR_COLUMNS))
    (bad,) = headlines(scores(gain=-0.2), nothing)
    assert bad.startswith("tiny, accuracy: prompts of tasks of same type score below no prompt")
    (good,) = headlines(scores(gain=0.2), nothing)
    assert "prompts of other tasks score above no prompt" in good
    level = scores(gain=0.2).assign(value=0.5)
    assert "prompts of other tasks score as no prompt does" in headlines(level, nothing)[0]


def indicator_rows(table, seeds):
    return results(
        {
            "kind": "indicator", "source": a, "target": b, "seed": seed, "by": "E", "measure": "similarity",
            "value": table[i, j],
        }
        for seed in range(seeds) for i, a in enumerate(TASKS) for j, b in enumerate(TASKS)
    )  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 3])
def test_indicators_have_p_values_from_several_seeds_only(seeds):
    noise = np.random.default_rng(5).random((8, 8))
    found = predictions(pd.concat([scores(seeds), indicator_rows(noise, seeds)]), TASKS)
    assert list(found.columns) == list(INDICATOR_COLUMNS)
    row = found.set_index("indicator").loc["E"]
    assert ("one seed" in row["note"]) == (seeds == 1)
    for name in ("p_permutation", "p_within_types", "p_minus_same_type"):
        assert pd.isna(row[name]) == (seeds == 1)
        assert row[f"smallest_{name}_holm"] > 0
    assert "smallest that" in row["note"]


def test_the_headline_does_not_praise_an_indicator_that_does_not_predict():
    flag = np.equal.outer(list(TASKS.values()), list(TASKS.values())).astype(float)
    noise = np.random.default_rng(5).random((8, 8))
    table = scores(3)

    def line(values):
        rows = predictions(pd.concat([table, indicator_rows(values, 3)]), TASKS)
        return headlines(table, rows)[-1]

    assert "no indicator predicts transfer: E, the only indicator, has mean Spearman -" in line(
        -flag + 0.1 * noise
    )
    assert "E predicts transfer better than chance does" in line(flag + 0.1 * noise)


def sped_up(measure, ends):
    """A row a task and seed: (value, low, high, bound) of each."""
    rows = [
        {
            "kind": "tuned",
            "condition": "from source",
            "relation": "same type",
            "target": f"t{index}",
            "seed": seed,
            "measure": measure,
            "value": value,
            "low": low,
            "high": high,
            "bound": bound,
        }
        for index, (value, low, high, bound) in enumerate(ends)
        for seed in (0, 1)
    ]
    return results(rows)


def test_speed_ups_are_medians_in_which_runs_that_never_got_there_count():
    there, never = (3.0, 2.0, 4.0, ""), (np.nan, 0.0, 0.5, "never reached")
    found = comparisons(sped_up("comparable speed-up", [there] * 4 + [never] * 3))
    row = found[found["over"] == "tasks"].iloc[0]
    assert (row["value"], row["pairs"]) == (3.0, 7)
    assert "median lies in 2.0x to 4.0x" in row["note"] and "6 of 14 runs: never reached" in row["note"]
    # of seven tasks the sign test leaves the least low end and the greatest high end; p = 2 P(at least 4 of 7) = 1
    assert (row["low"], row["high"], row["p"], row["significant"]) == (0.0, 4.0, 1.0, "no")
    most = comparisons(sped_up("comparable speed-up", [there] * 4 + [never] * 5))
    assert most.iloc[0]["value"] == 0.5 and "median lies in below 0.5x" in most.iloc[0]["note"]


def test_runs_that_did_not_learn_have_no_speed_up_and_are_counted():
    flat = (np.nan, np.nan, np.nan, "did not learn")
    found = comparisons(sped_up("convergence speed-up", [(3.0, 2.0, np.inf, "")] * 6 + [flat] * 2))
    row = found[found["over"] == "tasks"].iloc[0]
    assert (row["value"], row["pairs"], row["low"], row["high"]) == (3.0, 6, 2.0, np.inf)
    assert row["p"] == 1 / 32 and row["significant"] == "yes"
    assert "4 of 16 runs: did not learn" in row["note"]
    none = comparisons(sped_up("convergence speed-up", [flat] * 3))
    assert none.iloc[0]["pairs"] == 0 and "6 of 6 runs: did not learn" in none.iloc[0]["note"]


def test_the_matrix_is_the_mean_over_seeds_with_its_references_below() -> None:
    table = scores(seeds=2)
    matrix = mean_matrices(table)["tiny", "prompt"]
    assert list(matrix.index) == [*TASKS, "no prompt"] and list(matrix.columns) == [*TASKS]
    rows = table[(table["source"] == "t0") & (table["target"] == "t1")]
    assert matrix.loc["t0", "t1"] == pytest.approx(rows["value"].astype(float).mean())
    columns, lines = shown(matrix)
    assert columns == [*TASKS] and lines[-1] == ("no prompt", ["0.500"] * 8, True)


def test_the_winner_of_methods_is_that_of_the_tasks_that_all_have() -> None:
    first = scores(seeds=2)
    second = first.assign(method="lora", value=first["value"] + 0.01)
    second = second[second["target"] != "t0"]  # where it is not measured it does not count
    said = winners(pd.concat([first, second], ignore_index=True))
    assert (
        said[0].startswith("Highest own accuracy: tiny, lora 0.9") and "over 7 tasks and 2 seeds" in said[0]
    )
    alike = winners(pd.concat([first, first.assign(method="lora")], ignore_index=True))
    assert "alike" in alike[0]
    assert any(line.startswith("Best source on tiny: t") for line in said)


def test_the_page_names_its_columns_in_words_and_has_p_values_beside_the_differences() -> None:
    results = scores(seeds=7)
    tables = {
        "results": results,
        "comparisons": comparisons(results),
        "indicators": predictions(results, TASKS),
    }
    page = render_page("A study", tables, {}, {}, ["a note"], [], Call(verb="study run"))
    assert 'data-name="p, corrected"' in page and "p_holm" not in page.replace("comparisons.csv", "")
    for raw in ("mean_spearman", "smallest_p", "random_regret", "p_permutation"):
        assert raw not in page
    assert "<h3>" in page and 'class="hint"' in page and 'href="#comparisons"' in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_run_ends_with_the_matrix_and_who_is_ahead(capsys) -> None:
    print_outcome(scores(seeds=2))
    said = capsys.readouterr().out
    assert "zero-shot transfer on tiny" in said and "no prompt" in said
    assert "Best source on tiny: t" in said


def test_few_methods_are_told_in_sentences_and_many_in_a_table_with_one_row_each() -> None:
    one, nothing = scores(seeds=2), pd.DataFrame(columns=list(INDICATOR_COLUMNS))
    many = pd.concat([one.assign(method=f"lora:rank={rank}") for rank in range(1, 5)], ignore_index=True)
    assert "<table" not in in_short(one, nothing)
    said = in_short(many, nothing)
    assert (
        said.count("<tr>") == 5 and 'data-name="gain, same type"' in said
    )  # the headings, and a row a method


def test_a_p_value_is_never_nothing() -> None:
    assert [p_value(value) for value in (0.0004, 0.0312, 1.0, float("nan"))] == [
        "< 0.001",
        "0.031",
        "1.000",
        "",
    ]


def test_long_tables_of_a_study_wait_behind_their_title() -> None:
    results = pd.concat([scores(seeds=7).assign(method=f"lora:rank={rank}") for rank in range(1, 5)])
    tables = {
        "results": results,
        "comparisons": comparisons(results),
        "indicators": predictions(results, TASKS),
    }
    page = render_page("A study", tables, {}, {}, [], [], Call(verb="study run"))
    assert "<summary>zero-shot: " in page and "<summary>tiny, lora:rank=1</summary>" in page
