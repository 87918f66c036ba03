"""A report with hostile names, for the tests of the page."""

import numpy as np
import pandas as pd

from analysis.prediction import predict_transfer
from analysis.report import Picture, ReportData, View

HOSTILE = "</script><script>document.title='broken'</script>"
TASKS = ["sst2", "imdb", "mnli", "snli", "qqp", "<b>x&y</b>"]
TYPES = dict(zip(TASKS, ["sentiment", "sentiment", "nli", "nli", "paraphrase", "own \"type'"], strict=True))


def example() -> ReportData:
    """Six tasks, a row for reference, an empty cell, three views."""
    values = np.random.default_rng(0).random((7, 6)) * 0.5 + 0.4
    table = pd.DataFrame(values, index=[*TASKS, "no prompt"], columns=TASKS)
    table.iloc[0, 3] = np.nan
    indicator = pd.DataFrame(np.random.default_rng(1).random((6, 6)), index=TASKS, columns=TASKS)
    return ReportData(
        title=f"Transfer {HOSTILE}",
        views=(View("relative", table, "own is 100", percent=True), View("raw", table * 0.9), View("step 0", table * 0.5)),
        types=TYPES,
        seeds=table * 0 + 3,
        spread=table * 0 + 0.02,
        impossible={"snli": f"cannot be {HOSTILE}"},
        predictions=predict_transfer(table, {HOSTILE: indicator}, TYPES, draws=50),
        pictures=(Picture("map", f"where {HOSTILE}", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),),
        facts={"backbone": HOSTILE},
        environment={"torch": "2"},
        commands=("prompttransfer study run <file>",),
        notes=(HOSTILE,),
    )  # fmt: skip
