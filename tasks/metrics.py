"""Metrics: how answers are scored, each in 0..1, and what is scored without knowing anything.

A prediction is the index of a label, or the text that was generated. Exact match and token F1 normalise as the
evaluation script of SQuAD (Rajpurkar et al. 2016): lower case, no punctuation, no articles, single spaces; the best
reference counts; two answers that normalise to nothing agree, as in SQuAD 2.0. ROUGE-L is the F measure of the longest
common subsequence (Lin 2004, package `rouge-score`, no stemming), again of the best reference. What counts as a word in
text that is not Latin is said in texts.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from tasks.errors import UserError, unknown
from tasks.task import Example, Task
from tasks.texts import first_sentence, is_latin, normalise, unicode_words

Prediction = int | str
Metric = Callable[[Sequence[Prediction], Sequence[Example]], float]


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


LABEL_METRICS: dict[str, Metric] = {"accuracy": accuracy, "macro-f1": macro_f1}
ANSWER_METRICS: dict[str, Metric] = {"exact-match": exact_match, "token-f1": token_f1}
SUMMARY_METRICS: dict[str, Metric] = {"rouge-l": rouge_l}
METRICS: dict[str, Metric] = {**LABEL_METRICS, **ANSWER_METRICS, **SUMMARY_METRICS}


def score(metric: str, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
    """The metric first, then those that are customarily shown beside it; all in 0..1."""
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if len(predictions) != len(examples):
        raise UserError(f"{len(predictions)} predictions for {len(examples)} rows; give one prediction a row")
    if not examples:
        raise UserError(f"no rows to score {metric} on; give at least one")
    group = next(group for group in (LABEL_METRICS, ANSWER_METRICS, SUMMARY_METRICS) if metric in group)
    for prediction in predictions:
        if isinstance(prediction, str) == (group is LABEL_METRICS):
            raise UserError(
                f"{metric} scores {'label indices' if group is LABEL_METRICS else 'texts'}, not {prediction!r}; "
                f"metrics are {', '.join(METRICS)}"
            )
    return {
        name: METRICS[name](predictions, examples) for name in [metric, *(n for n in group if n != metric)]
    }


def chance(task: Task, examples: Sequence[Example]) -> float:
    """The metric of answering without a model: see `ignorant_predictions`."""
    return score(task.metric, ignorant_predictions(task, examples), examples)[task.metric]


def ignorant_predictions(task: Task, examples: Sequence[Example]) -> list[Prediction]:
    """The commonest label or answer of these very rows for each of them; for a summary, the first sentence."""
    if task.kind == "summarisation":
        return [first_sentence(example.first) for example in examples]
    if task.generates:
        answers = Counter(normalise(text) for example in examples for text in set(example.references))
        commonest: Prediction = answers.most_common(1)[0][0] if answers else ""
    else:
        labels = Counter(example.label for example in examples if example.label is not None)
        commonest = labels.most_common(1)[0][0] if labels else 0
    return [commonest] * len(examples)


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
