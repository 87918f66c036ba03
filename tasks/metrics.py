"""Metrics: how answers are scored, the larger the better (0 to 1; `mcc` and correlations -1 to 1), and what is scored without knowing anything.

A prediction is the index of a label, the indices of several, a number, or the text that was generated. Exact match and token F1 normalise as the
evaluation script of SQuAD (Rajpurkar et al. 2016): lower case, no punctuation, no articles, single spaces; the best
reference counts; two answers that normalise to nothing agree, as in SQuAD 2.0. ROUGE-L is the F measure of the longest
common subsequence (Lin 2004, package `rouge-score`, no stemming), again of the best reference. What counts as a word in
text that is not Latin is said in texts.py. The rarer metrics of labels are in label_metrics.py, those of numbers in
value_metrics.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from numbers import Integral, Real

from tasks.errors import UserError, unknown
from tasks.label_metrics import balanced_accuracy, calibration_error, f1_of_label, mcc, of_sets
from tasks.task import LABEL_METRICS as LABEL_NAMES
from tasks.task import OF_ONE_LABEL, SET_METRICS, Example, Task
from tasks.texts import first_sentence, is_latin, normalise, unicode_words
from tasks.value_metrics import pearson, spearman

Prediction = int | float | str | tuple[int, ...]
Metric = Callable[[Sequence[Prediction], Sequence[Example]], float]
CALIBRATION = "1-ece"


def accuracy(predictions: Sequence[Prediction], examples: Sequence[Example]) -> float:
    """The share of rows whose label was predicted."""
    return _mean([float(p == e.label) for p, e in zip(predictions, examples, strict=True)])


def macro_f1(predictions: Sequence[Prediction], examples: Sequence[Example]) -> float:
    """The mean F1 = 2 tp / (2 tp + fp + fn) over the labels that occur, as prediction or as truth."""
    truth = [example.label for example in examples]
    scores = []
    for label in {*truth, *predictions}:
        hits = sum(p == t == label for p, t in zip(predictions, truth, strict=True))
        scores.append(2 * hits / (sum(p == label for p in predictions) + sum(t == label for t in truth)))
    return _mean(scores)


def exact_match(predictions: Sequence[Prediction], examples: Sequence[Example]) -> float:
    """The share of rows whose normalised answer equals a normalised reference."""
    return _best(
        predictions, examples, lambda answer, reference: float(normalise(answer) == normalise(reference))
    )


def token_f1(predictions: Sequence[Prediction], examples: Sequence[Example]) -> float:
    """The mean F1 of the normalised words that answer and reference share."""
    return _best(predictions, examples, _word_f1)


def rouge_l(predictions: Sequence[Prediction], examples: Sequence[Example]) -> float:
    """The mean ROUGE-L F measure of the generated text against the reference."""
    from rouge_score.rouge_scorer import RougeScorer

    plain = RougeScorer(["rougeL"], use_stemmer=False)
    unicode = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_UnicodeWords())

    def agreement(answer: str, reference: str) -> float:
        scorer = plain if is_latin(answer) and is_latin(reference) else unicode
        return float(scorer.score(reference, answer)["rougeL"].fmeasure)

    return _best(predictions, examples, agreement)


def _of_values(correlation: Callable[[Sequence[float], Sequence[float]], float]) -> Metric:
    """A correlation as the other metrics are called."""

    def metric(predictions: Sequence[Prediction], examples: Sequence[Example]) -> float:
        truth = [float("nan") if example.value is None else example.value for example in examples]
        return correlation([float(p) for p in predictions if not isinstance(p, tuple)], truth)

    return metric


LABEL_METRICS: dict[str, Metric] = {"accuracy": accuracy, "macro-f1": macro_f1}
"""What every score of labels shows; others where they are asked for."""
ANSWER_METRICS: dict[str, Metric] = {"exact-match": exact_match, "token-f1": token_f1}
SUMMARY_METRICS: dict[str, Metric] = {"rouge-l": rouge_l}
NUMBER_METRICS: dict[str, Metric] = {"pearson": _of_values(pearson), "spearman": _of_values(spearman)}
GROUPS = (LABEL_METRICS, ANSWER_METRICS, SUMMARY_METRICS, NUMBER_METRICS)
"""Metrics that are shown beside each other."""
METRICS: dict[str, Metric] = {name: metric for group in GROUPS for name, metric in group.items()}
OF_SETS = tuple(name for name in SET_METRICS if name not in METRICS)
"""What is known of rows with any number of labels alone; macro-f1 and f1:LABEL are of both."""
RARER = (*(name for name in LABEL_NAMES if name not in LABEL_METRICS), f"{OF_ONE_LABEL}LABEL")


def is_of_labels(metric: str) -> bool:
    """Whether a metric scores labels, and neither texts nor numbers."""
    return metric in LABEL_NAMES or metric.startswith(OF_ONE_LABEL)


def is_of_texts(metric: str) -> bool:
    """Whether a metric scores texts that were written."""
    return metric in ANSWER_METRICS or metric in SUMMARY_METRICS


def needs_probabilities(metric: str) -> bool:
    """Whether a metric looks at the probabilities of the labels."""
    return metric == CALIBRATION


def score(
    metric: str,
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    *,
    labels: Sequence[str] = (),
    probabilities: Sequence[Sequence[float]] | None = None,
) -> dict[str, float]:
    """The metric first, then those that are customarily shown beside it.

    `labels` are the task's, for `f1:LABEL`; `probabilities` [rows, labels] those of the labels, for `1-ece`.
    """
    if metric not in METRICS and not is_of_labels(metric) and metric not in OF_SETS:
        raise unknown("metric", metric, [*METRICS, *RARER, *OF_SETS])
    if len(predictions) != len(examples):
        raise UserError(f"{len(predictions)} predictions for {len(examples)} rows; give one prediction a row")
    if not examples:
        raise UserError(f"no rows to score {metric} on; give at least one")
    if metric in OF_SETS or examples[0].labels is not None:
        return _sets(metric, predictions, examples, labels)
    scored, type_ = _scored(metric)
    for prediction in predictions:
        if not isinstance(prediction, type_):
            raise UserError(
                f"{metric} scores {scored}, not {prediction!r}; metrics are {', '.join([*METRICS, *RARER])}"
            )
    group = next((group for group in GROUPS if metric in group), LABEL_METRICS)
    found = {}
    if metric not in METRICS:
        found[metric] = _rarer(metric, predictions, examples, labels, probabilities)
    names = [metric, *(name for name in group if name != metric)]
    return found | {name: METRICS[name](predictions, examples) for name in names if name in METRICS}


def _sets(
    metric: str, predictions: Sequence[Prediction], examples: Sequence[Example], labels: Sequence[str]
) -> dict[str, float]:
    """The metrics of rows with any number of labels."""
    if metric not in SET_METRICS and not metric.startswith(OF_ONE_LABEL):
        raise UserError(
            f"{metric} scores one label a row, and these have any number: take {', '.join(SET_METRICS)}"
        )
    truth = [example.labels or () for example in examples]
    given = []
    for prediction in predictions:
        if not isinstance(prediction, tuple):
            raise UserError(f"{metric} scores label indices of rows that have any number, not {prediction!r}")
        given.append(prediction)
    found = {}
    if metric.startswith(OF_ONE_LABEL):
        index = labels.index(metric.removeprefix(OF_ONE_LABEL))
        found[metric] = f1_of_label([index in own for own in given], [index in own for own in truth], 1)
    names = [metric, *(name for name in SET_METRICS if name != metric)]
    return found | {name: of_sets(name, given, truth, len(labels)) for name in names if name in SET_METRICS}


def _scored(metric: str) -> tuple[str, type]:
    """What a metric scores, in words and as a type."""
    if is_of_labels(metric):
        return "label indices", Integral
    return ("texts", str) if is_of_texts(metric) else ("numbers", Real)


def _rarer(
    metric: str,
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    labels: Sequence[str],
    probabilities: Sequence[Sequence[float]] | None,
) -> float:
    predicted = [int(prediction) for prediction in predictions if not isinstance(prediction, tuple)]
    truth = [-1 if example.label is None else example.label for example in examples]
    if metric == "mcc":
        return mcc(predicted, truth)
    if metric == "balanced-accuracy":
        return balanced_accuracy(predicted, truth)
    if metric == CALIBRATION:
        if probabilities is None:
            raise UserError(f"{metric} needs the probabilities of the labels, which were not kept")
        return 1 - calibration_error(predicted, truth, probabilities)
    label = metric.removeprefix(OF_ONE_LABEL)
    if label not in labels:
        raise unknown(f"label in the metric {metric!r}:", label, labels)
    return f1_of_label(predicted, truth, labels.index(label))


def chance(task: Task, examples: Sequence[Example]) -> float:
    """The metric of answering without a model: see `ignorant_predictions`; its probabilities are the labels' own shares."""
    shares = None
    if needs_probabilities(task.metric):
        counts = Counter(example.label for example in examples)
        shares = [[counts[label] / len(examples) for label in range(len(task.labels))]] * len(examples)
    answers = ignorant_predictions(task, examples)
    return score(task.metric, answers, examples, labels=task.labels, probabilities=shares)[task.metric]


def ignorant_predictions(task: Task, examples: Sequence[Example]) -> list[Prediction]:
    """The commonest label or answer of these very rows for each of them, or their mean number; for a summary, the first
    sentence; of several labels the constant set that scores best."""
    if task.kind == "summarisation":
        return [first_sentence(example.first) for example in examples]
    if task.scale is not None:
        values = [example.value for example in examples if example.value is not None]
        return [_mean(values)] * len(examples)
    if task.separator:
        return [_best_set(task, examples)] * len(examples)
    if task.generates:
        answers = Counter(normalise(text) for example in examples for text in set(example.references))
        commonest: Prediction = answers.most_common(1)[0][0] if answers else ""
    else:
        labels = Counter(example.label for example in examples if example.label is not None)
        commonest = labels.most_common(1)[0][0] if labels else 0
    return [commonest] * len(examples)


def _best_set(task: Task, examples: Sequence[Example]) -> tuple[int, ...]:
    """The constant set of labels that scores best by the task's metric, for every row.

    Subset accuracy wants the commonest set. Of k labels the k commonest have the most hits, n k + all given labels is the
    denominator of micro-F1 whichever they are, so it wants the best k of these. F1 of a label, and so the mean over labels,
    cannot lose by what else is said.
    """
    if task.metric == "subset-accuracy":
        return Counter(example.labels or () for example in examples).most_common(1)[0][0]
    counts = Counter(label for example in examples for label in example.labels or ())
    ranked = [label for label, _ in counts.most_common()]
    if task.metric != "micro-f1":
        return tuple(sorted(ranked))
    hits = [0, *accumulate(counts[label] for label in ranked)]
    best = max(range(len(hits)), key=lambda k: 2 * hits[k] / max(1, k * len(examples) + hits[-1]))
    return tuple(sorted(ranked[:best]))


class _UnicodeWords:
    """A tokenizer as `rouge-score` takes one."""

    def tokenize(self, text: str) -> list[str]:
        return unicode_words(text)


def _word_f1(answer: str, reference: str) -> float:
    """F1 over the bags of normalised words; an empty bag agrees with an empty one alone (SQuAD 2.0)."""
    given, wanted = normalise(answer).split(), normalise(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


def _best(
    predictions: Sequence[Prediction], examples: Sequence[Example], agree: Callable[[str, str], float]
) -> float:
    """The mean over rows of the best agreement with a reference; a row without one counts 0."""
    return _mean(
        [
            max((agree(str(prediction), reference) for reference in example.references), default=0.0)
            for prediction, example in zip(predictions, examples, strict=True)
        ]
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
