"""A study file to begin with: every part that a study can have, those that are not asked for behind a `#`."""

from __future__ import annotations

from collections.abc import Sequence

TEMPLATE = """\
# A whole experiment in one file: docs/study.md has every key. `study plan FILE` says what would run and what it takes.
study: {study}
about: ""                            # a line for the reports
backbones: [{backbones}]   # names as --backbone takes them; {{name: ..., tasks: [...], label-words: {{...}}}} for more
tasks: [{tasks}]
# methods: [prompt, {{name: lora, rank: 8}}]      # prompt alone if not given; {{name: prompt, label: tuned, tune: {{lr: [0.01, 0.1]}}}}
seeds: [0, 1, 2]                     # start, row order and validation rows of each; a claim needs several
# data: path/to/data                 # rows of one's own, as --data takes them
# limit-train: 1000                  # rows; all if not given
limit-test: 200
precision: fp32                      # fp32 or bf16: named, so that every machine gives the same numbers
recipe: {{steps: 100, batch: 32, evaluate-every: 25}}   # also length, lr, optimizer, patience; by method and model if not given

transfers:
  zero-shot: true
  # calibrate: train-mean            # a second matrix with the lean of the label words taken off
  # initialisation: {{sources: all, steps: 100, evaluate-every: 25}}     # train every target from every source, too

# projectors:                        # prompts of one backbone on another; both stand under backbones
#   - source: microworld-roberta
#     target: microworld-roberta-wide
#     method: task
#     fitting: [{fitting}]
#     unseen: [{unseen}]

indicators:
  similarity: [E_average, C_average]
  # neurons: [ON]                    # overlap of activated neurons
  # estimates: {{measures: [LogME], rows: 32}}

report: {{title: "{study}"}}
"""


def study_template(study: str, backbones: Sequence[str], tasks: Sequence[str]) -> str:
    """The text of a study file."""
    return TEMPLATE.format(
        study=study,
        backbones=", ".join(backbones),
        tasks=", ".join(tasks),
        fitting=", ".join(tasks[:-1] or tasks),
        unseen=tasks[-1],
    )
