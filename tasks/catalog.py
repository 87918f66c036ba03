"""The shipped tasks: the 17 of Su et al. 2022 (arXiv 2111.06719), and three more; one record each.

Label order is the order of the authors' verbalisers (negative before positive, contradiction before entailment).
Label words are theirs first and common alternatives after, because many vocabularies split the authors' words. The
i-th words of the labels of a task belong together (terrible / okay / great).

Hub sources are repositories of parquet files, or the hub's own parquet branch of a repository that once had a
loading script (`refs/convert/parquet`, a branch that the hub rewrites: no fixed commit). No commit is pinned, as none
could be established; the commit that was loaded is recorded with every result.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.errors import unknown
from tasks.task import HubSource, Task, Words

HubLabels = Mapping[int | str, str | None]

POLARITY = {
    "negative": ("negative", "terrible", "bad"),
    "neutral": ("moderate", "okay", "neutral"),
    "positive": ("positive", "great", "good"),
}
SPOKEN_POLARITY = {
    "negative": ("terrible", "negative", "bad"),
    "neutral": ("okay", "neutral", "mixed"),
    "positive": ("great", "positive", "good"),
}
"""For decoders, whose rows end in `Sentiment:`."""
NLI: dict[str, Words] = {
    "masked-lm": {
        "contradiction": ("no", "no", "wrong"),
        "neutral": ("neutral", "maybe", "maybe"),
        "entailment": ("yes", "yes", "right"),
    },
    "t5": {
        "contradiction": ("contradiction", "no"),
        "neutral": ("neutral", "maybe"),
        "entailment": ("entailment", "yes"),
    },
    "causal-lm": {"contradiction": ("no",), "neutral": ("maybe",), "entailment": ("yes",)},
}
ANSWERABLE: dict[str, Words] = {
    "masked-lm": {"not_entailment": ("no",), "entailment": ("yes",)},
    "t5": {"not_entailment": ("contradiction", "no"), "entailment": ("entailment", "yes")},
    "causal-lm": {"not_entailment": ("no",), "entailment": ("yes",)},
}
JUDGEMENT = {"unreasonable": ("unacceptable", "wrong", "bad"), "reasonable": ("acceptable", "fine", "good")}
SPOKEN_JUDGEMENT = {"unreasonable": ("no", "wrong"), "reasonable": ("yes", "fine")}
SAMENESS = {"not_paraphrase": ("false", "different", "no"), "paraphrase": ("true", "same", "yes")}
SPOKEN_SAMENESS = {"not_paraphrase": ("no", "different"), "paraphrase": ("yes", "same")}

CONVERTED = "refs/convert/parquet"


def _same(words: Words, spoken: Words) -> dict[str, Words]:
    """The same words for masked LMs and T5, as in the paper for all tasks but inference; `spoken` for decoders."""
    return {"masked-lm": words, "t5": words, "causal-lm": spoken}


def _sentiment(
    name: str, hub: HubSource, *, neutral: bool = False, aspect: bool = False, note: str = ""
) -> Task:
    labels = ("negative", "neutral", "positive") if neutral else ("negative", "positive")
    words, spoken = ({label: every[label] for label in labels} for every in (POLARITY, SPOKEN_POLARITY))
    return Task(
        name,
        "sentiment",
        "sentence",
        labels=labels,
        words=_same(words, spoken),
        hub=hub,
        aspect=aspect,
        note=note,
    )


def _nli(name: str, hub: HubSource, note: str = "") -> Task:
    return Task(name, "nli", "pair", labels=tuple(NLI["t5"]), words=NLI, hub=hub, note=note)


def _ethics(name: str, kind: str, hub: HubSource, template: str) -> Task:
    return Task(
        name,
        "ethics",
        kind,
        labels=tuple(JUDGEMENT),
        words=_same(JUDGEMENT, SPOKEN_JUDGEMENT),
        hub=hub,
        note="official test file is the test split, as in Su et al.",
        template=template,
    )


def _paraphrase(name: str, hub: HubSource, note: str = "", template: str = "") -> Task:
    return Task(
        name,
        "paraphrase",
        "pair",
        labels=tuple(SAMENESS),
        words=_same(SAMENESS, SPOKEN_SAMENESS),
        hub=hub,
        note=note,
        template=template,
    )


def _qa(name: str, kind: str, hub: HubSource) -> Task:
    return Task(name, "qa", kind, hub=hub)


def _summarisation(name: str, hub: HubSource, note: str = "") -> Task:
    return Task(name, "summarisation", "summarisation", hub=hub, note=note)


BINARY: HubLabels = {0: "negative", 1: "positive"}
TERNARY: HubLabels = {0: "negative", 1: "neutral", 2: "positive"}
NAMED: HubLabels = {"negative": "negative", "neutral": "neutral", "positive": "positive", "conflict": None}
ENTAILMENT: HubLabels = {0: "entailment", 1: "neutral", 2: "contradiction"}
REASONABLE: HubLabels = {0: "unreasonable", 1: "reasonable"}
PARAPHRASE: HubLabels = {0: "not_paraphrase", 1: "paraphrase"}
CONFLICT = (
    "the rare SemEval class 'conflict' is left out, as in the paper's appendix (the authors' code keeps it)"
)
PREMISE_FIRST = "text_a is the premise, text_b the hypothesis (Su et al. put the hypothesis first)"

_ALL = (
    _sentiment("imdb", HubSource("stanfordnlp/imdb", test="test", labels=BINARY)),
    _sentiment("sst2", HubSource("nyu-mll/glue", "sst2", columns={"text": "sentence"}, labels=BINARY)),
    _sentiment("rotten_tomatoes", HubSource("cornell-movie-review-data/rotten_tomatoes", labels=BINARY)),
    _sentiment(
        "laptop",
        HubSource(
            "tomaarsen/setfit-absa-semeval-laptops", test="test", columns={"aspect": "span"}, labels=NAMED
        ),
        neutral=True,
        aspect=True,
        note=CONFLICT,
    ),
    _sentiment(
        "restaurant",
        HubSource(
            "tomaarsen/setfit-absa-semeval-restaurants", test="test", columns={"aspect": "span"}, labels=NAMED
        ),
        neutral=True,
        aspect=True,
        note=CONFLICT,
    ),
    _sentiment(
        "movie_rationales",
        HubSource(
            "eraser-benchmark/movie_rationales",
            revision=CONVERTED,
            columns={"text": "review"},
            labels=BINARY,
            data_files={"train": "default/train/*.parquet", "validation": "default/validation/*.parquet"},
        ),
    ),
    _sentiment(
        "tweeteval_sentiment", HubSource("cardiffnlp/tweet_eval", "sentiment", labels=TERNARY), neutral=True
    ),
    _nli(
        "mnli",
        HubSource(
            "nyu-mll/glue",
            "mnli",
            test="validation_matched",
            columns={"text_a": "premise", "text_b": "hypothesis"},
            labels=ENTAILMENT,
        ),
        PREMISE_FIRST,
    ),
    Task(
        "qnli",
        "nli",
        "pair",
        labels=tuple(ANSWERABLE["t5"]),
        words=ANSWERABLE,
        hub=HubSource(
            "nyu-mll/glue",
            "qnli",
            columns={"text_a": "question", "text_b": "sentence"},
            labels={0: "entailment", 1: "not_entailment"},
        ),
        template="{text_b}\nQuestion: {text_a}\nIs the question answered? Answer:",
    ),
    _nli(
        "snli",
        HubSource(
            "stanfordnlp/snli",
            columns={"text_a": "premise", "text_b": "hypothesis"},
            labels={**ENTAILMENT, -1: None},
        ),
        PREMISE_FIRST + "; rows without a gold label are left out",
    ),
    _ethics(
        "ethics_deontology",
        "pair",
        HubSource(
            "EleutherAI/hendrycks_ethics",
            revision=CONVERTED,
            test="test",
            columns={"text_a": "scenario", "text_b": "excuse"},
            labels=REASONABLE,
            data_files={"train": "deontology/train/*.parquet", "test": "deontology/test/*.parquet"},
        ),
        "{text_a}\nExcuse: {text_b}\nQuestion: Is that reasonable?\nAnswer:",
    ),
    _ethics(
        "ethics_justice",
        "sentence",
        HubSource(
            "EleutherAI/hendrycks_ethics",
            revision=CONVERTED,
            test="test",
            columns={"text": "scenario"},
            labels=REASONABLE,
            data_files={"train": "justice/train/*.parquet", "test": "justice/test/*.parquet"},
        ),
        "{text}\nQuestion: Is that reasonable?\nAnswer:",
    ),
    _paraphrase(
        "qqp",
        HubSource(
            "nyu-mll/glue",
            "qqp",
            columns={"text_a": "question1", "text_b": "question2"},
            labels=PARAPHRASE,
        ),
        template="{text_a}\n{text_b}\nQuestion: Do both ask the same?\nAnswer:",
    ),
    _paraphrase(
        "mrpc",
        HubSource(
            "nyu-mll/glue",
            "mrpc",
            columns={"text_a": "sentence1", "text_b": "sentence2"},
            labels=PARAPHRASE,
        ),
    ),
    _paraphrase(
        "paws",
        HubSource(
            "google-research-datasets/paws",
            "labeled_final",
            columns={"text_a": "sentence1", "text_b": "sentence2"},
            labels=PARAPHRASE,
        ),
        "not among the tasks of Su et al.",
    ),
    _qa("squad", "extractive-qa", HubSource("rajpurkar/squad", columns={"answers": "answers.text"})),
    _qa(
        "nq_open",
        "closed-book-qa",
        HubSource("google-research-datasets/nq_open", columns={"answers": "answer"}),
    ),
    _summarisation(
        "multi_news",
        HubSource("Awesome075/multi_news_parquet"),
        "the hub copy is a reader's parquet conversion of alexfabbri/multi_news, whose own repository is a script",
    ),
    _summarisation("samsum", HubSource("knkarthick/samsum", columns={"document": "dialogue"})),
    _summarisation(
        "scitldr",
        HubSource(
            "allenai/scitldr",
            revision=CONVERTED,
            columns={"document": "source", "summary": "target"},
            data_files={"train": "Abstract/train/*.parquet", "validation": "Abstract/validation/*.parquet"},
        ),
        "not among the tasks of Su et al.; abstracts only, each with every summary that was written for it",
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def all_tasks(own: Mapping[str, Task] | None = None) -> dict[str, Task]:
    """Every task by name: the real ones, the embedded world's, and the user's own."""
    from tasks.microworld import WORLD_TASKS  # the world is not needed to describe real tasks

    return {**TASKS, **WORLD_TASKS, **(own or {})}


def find_task(name: str, own: Mapping[str, Task] | None = None) -> Task:
    """The task of that name; `own` are tasks read from the user's files."""
    if own and name in own:
        return own[name]
    if name in TASKS:
        return TASKS[name]
    everything = all_tasks(own)
    if name not in everything:
        raise unknown("task", name, everything)
    return everything[name]
