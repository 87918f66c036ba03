"""The pre-training text of the embedded backbones: rows of the embedded world with natural cues.

One idea: a verdict stands where a cue in words asks for it ("overall : great . the film ..."), and stands at random
where none does or where the cue is of another type. The frozen model then answers when it is asked and guesses when it
is not, so a soft prompt has something to elicit and no label word alone elicits it.

The tuned format, soft vectors, `<s>`, an answer and at once the text, never occurs with its cue, and no row of the
tasks' own train and test splits occurs at all (`held_out`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.microworld import BUILDERS, WORLD_TASKS, generate, texts
from tasks.microworld.answers import closed_book, fact
from tasks.microworld.ethics import BAD_DEEDS, DUTIES, GOOD_DEEDS, STATES
from tasks.microworld.words import (
    CATEGORY,
    COLOURS,
    DAYS,
    DEEDS,
    DOMAINS,
    HATED,
    LIKED,
    NAMES,
    PLACES,
    ROLES,
    THING_LIST,
)
from tasks.task import Example, Task

CUES: dict[str, tuple[str, ...]] = {
    "sentiment": ("overall :", "verdict :", "in sum it was", "my rating is", "the reviewer felt"),
    "nli": ("does it follow ?", "conclusion :", "can we infer it ?", "is it implied ?"),
    "ethics": ("morally that is", "judged :", "is it right ?", "ethics :"),
    "paraphrase": ("same meaning ?", "do they match ?", "equal :", "is it a copy ?"),
    "qa": ("answer :", "reply :", "the solution is", "find it :"),
    "summarisation": ("summary :", "in short :", "briefly :", "to sum up :"),
}
"""Type -> wordings that ask for its answer."""

ODD_CUES = ("odd word :", "what is off ?", "the difference is")
GROUND_CUES = ("given :", "source :")
"""Asked for the word that a verdict on one aspect rests on."""
NOTHING_ODD = "none"
"""Asked for the word of a row that does not fit the rest; teaches in many bits what a verdict tells in one."""

TOPIC_CUES = ("topic :", "it is about", "kind :")
TOPICS = {
    "microworld-imdb": "film",
    "microworld-sst2": "phrase",
    "microworld-rotten-tomatoes": "critic",
    "microworld-laptop": "laptop",
    "microworld-restaurant": "restaurant",
    "microworld-tweet": "message",
    "microworld-mnli": "report",
    "microworld-snli": "scene",
    "microworld-qnli": "question",
    "microworld-deontology": "excuse",
    "microworld-justice": "justice",
    "microworld-qqp": "forum",
    "microworld-mrpc": "statement",
    "microworld-squad": "context",
    "microworld-nq-open": "quiz",
    "microworld-samsum": "chat",
    "microworld-multi-news": "news",
}
"""Task -> the word that names it, asked for by a topic cue: one of the things a front slot may be for."""

EXTRA_WORDS = tuple(
    "question context hypothesis premise sentence document article passage text review given or source".split()
)
"""Words of templates that a user may put around a row."""

OPENINGS = ("", "tell me , ", "do you know ", "please say ", "quiz : ", "i forgot , ")
"""How a question to the closed book begins here; the rows of the task begin in other ways."""
SEPARATORS = (".", ":", ",", "!", "-")


def label_words(task: Task) -> tuple[str, ...]:
    """The word of each label, in label order."""
    return tuple(task.words["masked-lm"][label][0] for label in task.labels)


CLASSIFICATION = tuple(name for name, task in WORLD_TASKS.items() if not task.generates)
ANSWERS = {
    type_: tuple(
        dict.fromkeys(
            w for n in CLASSIFICATION if WORLD_TASKS[n].type == type_ for w in label_words(WORLD_TASKS[n])
        )
    )
    for type_ in ("sentiment", "nli", "ethics", "paraphrase")
}
"""Type -> all its label words."""
ALL_ANSWERS = tuple(word for words in ANSWERS.values() for word in words)


def held_out() -> set[frozenset[str]]:
    """The texts of every row that the tasks train, select and test on; none may be in the pre-training text."""
    return {
        texts(row) for name in WORLD_TASKS for split in ("train", "test") for row in generate(name, split)
    }


def words_of(text: str) -> list[str]:
    """The words of a text of the world; its punctuation stands alone already."""
    return text.split()


def vocabulary() -> list[str]:
    """Every word of the world, its cues and its templates, in alphabetical order."""
    rng = random.Random("vocabulary")
    found = {NOTHING_ODD} | set(EXTRA_WORDS) | set(SEPARATORS) | set(ALL_ANSWERS) | set(TOPICS.values())
    for cues in (*CUES.values(), TOPIC_CUES, ODD_CUES):
        found.update(word for cue in cues for word in words_of(cue))
    for name, build in BUILDERS.items():
        for _ in range(4000):
            row = build(rng, rng.randrange(max(len(WORLD_TASKS[name].labels), 1)))
            for text in (row.first, row.second or "", *row.references):
                found.update(words_of(text))
    found.update(word for opening in OPENINGS for word in words_of(opening))
    found.update(word for _ in range(2000) for word in words_of(fact(rng)))
    return sorted(found)


def draw(rng: random.Random, name: str, forbidden: set[frozenset[str]]) -> Example:
    """One row of a task that is in none of its splits."""
    while True:
        label = rng.randrange(max(len(WORLD_TASKS[name].labels), 1))
        row = closed_book(rng, OPENINGS) if name == "microworld-nq-open" else BUILDERS[name](rng, label)
        if texts(row) not in forbidden:
            return row


_GROUP = {
    form: f"deed {i}"
    for i, group in enumerate(DEEDS)
    for verb in group
    for form in (verb.base, verb.past, verb.ing)
}
SLOT_VALUES = frozenset((*PLACES, *DAYS, *COLOURS, *NAMES, *ROLES, *THING_LIST, *CATEGORY.values(), *_GROUP))
ADJECTIVES = frozenset(word for domain in DOMAINS.values() for word in (*domain.good, *domain.bad))
FEELINGS = frozenset(form for pair in (*LIKED, *HATED) for form in pair)
_STATE_OF = {verb: state for verb, (state, _) in DUTIES.items()}


def detail(rng: random.Random, name: str, row: Example) -> tuple[str, str] | None:
    """(cue, answer) of a question that is narrower than a verdict; None where the row has none."""
    if name in ("microworld-laptop", "microworld-restaurant"):
        found = opinion_word(row)
        return None if found is None else (rng.choice(GROUND_CUES), found)
    odd = odd_word(name, row)
    return None if odd is None else (rng.choice(ODD_CUES), odd)


def opinion_word(row: Example) -> str | None:
    """The adjective or verb that judges the aspect at the end of the row."""
    *rest, aspect = words_of(row.first)
    if aspect not in rest:
        return None
    at = rest.index(aspect)
    if at >= 2 and rest[at - 1] == "the" and rest[at - 2] in FEELINGS:
        return rest[at - 2]
    return next((word for word in rest[at:] if word in ADJECTIVES), None)


def odd_word(name: str, row: Example) -> str | None:
    """The word of the row that does not fit the rest, NOTHING_ODD if all fit, None where that cannot be said."""
    type_ = WORLD_TASKS[name].type
    if type_ in ("nli", "paraphrase") and name != "microworld-qnli":
        return _unsupported(row)
    if name == "microworld-deontology":
        duty = next((word for word in words_of(row.first) if word in _STATE_OF), None)
        state = next((word for word in words_of(row.second or "") if word in STATES), None)
        if duty is None or state is None:
            return None
        return (
            NOTHING_ODD
            if row.label == 1
            else (state if _STATE_OF[duty] != state else words_of(row.second or "")[-5])
        )
    if name == "microworld-justice":
        if row.label == 1:
            return NOTHING_ODD
        deed = next((word for word in words_of(row.first) if word in (*GOOD_DEEDS, *BAD_DEEDS)), None)
        return deed
    return None


def _unsupported(row: Example) -> str | None:
    """The word of the second text that the first does not bear out by itself, a synonym or a thing of its category."""
    told = {_GROUP.get(word, word) for word in words_of(row.first)}
    told |= {CATEGORY[word] for word in words_of(row.first) if word in CATEGORY}
    odd = [w for w in words_of(row.second or "") if w in SLOT_VALUES and _GROUP.get(w, w) not in told]
    if row.label in (0, 1) and len(odd) == 1:
        return odd[0]
    return NOTHING_ODD if not odd and row.label != 0 else None


@dataclass(frozen=True)
class Line:
    """A line of text for a masked model: words, and for some positions the word that was there before the mask."""

    words: tuple[str, ...]
    answers: tuple[tuple[int, str], ...]
    junk: tuple[int, ...]
    """Positions whose vector may be replaced by noise: loose words in front that mean nothing."""
    shown: bool = False
    """Whether the model is shown where to look in it (microworld_looks.py)."""


def loose_words(rng: random.Random, pool: Sequence[str], most: int = 24) -> list[str]:
    """Some words that mean nothing together; often none."""
    return [rng.choice(pool) for _ in range(rng.randrange(most + 1))] if rng.random() < 0.7 else []


def plain_line(rng: random.Random, name: str, row: Example) -> Line:
    """A row as ordinary text, many of its words masked; it should be one whose parts fit together."""
    words = ["<s>", *body(rng, row), "</s>"]
    answers: list[tuple[int, str]] = []
    for i in range(1, len(words) - 1):
        if rng.random() < 0.2 and words[i] != "</s>":
            answers.append((i, words[i]))
            words[i] = "<mask>"
    return Line(tuple(words), tuple(answers) or ((0, "<s>"),), ())


def asked(rng: random.Random, name: str, row: Example, noise: float, odd_from: float) -> tuple[str, str]:
    """(cue, answer) of a slot: mostly the right cue with the right answer, else a guess under a strange cue or none."""
    task = WORLD_TASKS[name]
    luck = rng.random()
    if luck < 0.12 * noise:
        return "", rng.choice(ALL_ANSWERS)
    if luck < 0.24 * noise:
        strange = rng.choice([type_ for type_ in ANSWERS if type_ != task.type])
        return rng.choice(CUES[strange]), rng.choice(ANSWERS[strange] if rng.random() < 0.5 else ALL_ANSWERS)
    if luck < 0.27 * noise:
        return rng.choice(TOPIC_CUES), TOPICS[name]
    narrow = detail(rng, name, row) if luck > odd_from else None
    if narrow is not None:
        return narrow
    return rng.choice(CUES[task.type]), label_words(task)[row.label or 0]


def body(rng: random.Random, row: Example) -> list[str]:
    """The texts of the row as a masked model reads them."""
    if row.second is None:
        return words_of(row.first)
    between = ["</s>", "</s>"] if rng.random() < 0.8 else ["</s>"]
    return [*words_of(row.first), *between, *words_of(row.second)]


def masked_line(
    rng: random.Random, name: str, row: Example, pool: Sequence[str], noise: float, odd_from: float = 0.75
) -> Line:
    """One row as a line with a slot in front, behind, or both.

    In front: `[loose words with the cue] <s> ANSWER . TEXT </s>` or `[loose words] <s> cue ANSWER [.] TEXT </s>`;
    behind: `... TEXT cue ANSWER </s>`.
    """
    answers: list[tuple[int, str]] = []
    before = loose_words(rng, pool) if rng.random() < noise else []
    junk = list(range(len(before)))
    words = list(before)
    behind = rng.random() < 0.3
    if not behind or rng.random() < 0.4:
        cue, answer = asked(rng, name, row, noise, odd_from)
        separator = [rng.choice(SEPARATORS)]
        if cue and rng.random() < 0.7:
            at = rng.randrange(len(before) + 1)
            words = [*before[:at], *words_of(cue), *before[at:]]
            junk = [i if i < at else i + len(words_of(cue)) for i in junk]
            words.append("<s>")
        else:
            words += ["<s>", *words_of(cue)]
            separator = separator if not cue or rng.random() < 0.5 else []
        answers.append((len(words), answer))
        words += ["<mask>", *separator]
    else:
        words.append("<s>")
    start = len(words)
    words += body(rng, row)
    _mask_words(rng, words, start, answers)
    if behind:
        cue, answer = asked(rng, name, row, noise, odd_from)
        words += words_of(cue)
        answers.append((len(words), answer))
        words.append("<mask>")
    return Line((*words, "</s>"), tuple(answers), tuple(junk))


def _mask_words(rng: random.Random, words: list[str], start: int, answers: list[tuple[int, str]]) -> None:
    """Mask a tenth of the text in half of the lines, as any masked model learns."""
    if rng.random() < 0.8:
        return
    for i in range(start, len(words)):
        if rng.random() < 0.12 and words[i] != "</s>":
            answers.append((i, words[i]))
            words[i] = "<mask>"


@dataclass(frozen=True)
class Exchange:
    """What an encoder-decoder reads and what it then says."""

    words: tuple[str, ...]
    target: tuple[str, ...]
    junk: tuple[int, ...]
    shown: bool = False
    """Whether the model is shown where to look in it (microworld_looks.py)."""


def exchange(
    rng: random.Random, name: str, row: Example, pool: Sequence[str], noise: float, odd_from: float = 0.75
) -> Exchange:
    """One row for an encoder-decoder: `[loose words with the cue] TEXT` or `TEXT cue`, and the answer."""
    before = loose_words(rng, pool) if rng.random() < noise else []
    cue, answer = _asked_to_say(rng, name, row, noise, odd_from)
    text = _encoder_body(rng, name, row)
    if rng.random() < 0.75:
        at = rng.randrange(len(before) + 1)
        size = len(words_of(cue))
        words = [*before[:at], *words_of(cue), *before[at:], *text, "</s>"]
        junk = tuple(i if i < at else i + size for i in range(len(before)))
    else:
        words = [*before, *text, *(["</s>"] if rng.random() < 0.5 else []), *words_of(cue), "</s>"]
        junk = tuple(range(len(before)))
    return Exchange(tuple(words), (*words_of(answer), "</s>"), junk)


def _asked_to_say(
    rng: random.Random, name: str, row: Example, noise: float, odd_from: float
) -> tuple[str, str]:
    task, luck = WORLD_TASKS[name], rng.random()
    words = words_of(row.first)
    if luck < 0.10 * noise:
        return "", rng.choice(ALL_ANSWERS) if rng.random() < 0.7 else rng.choice(words)
    if luck < 0.20 * noise:
        strange = rng.choice([type_ for type_ in ANSWERS if type_ != task.type])
        return rng.choice(CUES[strange]), rng.choice(ANSWERS[strange] if rng.random() < 0.6 else ALL_ANSWERS)
    if luck < 0.22 * noise:
        return rng.choice(TOPIC_CUES), TOPICS[name]
    narrow = detail(rng, name, row) if luck > odd_from else None
    if narrow is not None:
        return narrow
    answer = row.references[0] if task.generates else label_words(task)[row.label or 0]
    return rng.choice(CUES[task.type]), answer


def _encoder_body(rng: random.Random, name: str, row: Example) -> list[str]:
    """The texts as T5 reads them: a separator between, or the words that templates put in front of each."""
    first, second = words_of(row.first), words_of(row.second or "")
    kind = WORLD_TASKS[name].kind
    named = {"pair": ("sentence", "sentence"), "extractive-qa": ("question", "context")}.get(kind)
    if not second or named is None:
        return first
    if rng.random() < 0.7:
        return [*first, "</s>", *second]
    texts_ = [[named[0], ":", *first], [named[1], ":", *second]]
    if kind == "extractive-qa" and rng.random() < 0.5:
        texts_.reverse()
    return [*texts_[0], *texts_[1]]


def corrupted(rng: random.Random, row: Example) -> Exchange:
    """A few words left out and asked for by their sentinels, as T5 is pre-trained."""
    words = [*words_of(row.first), *(["</s>", *words_of(row.second)] if row.second else [])]
    open_ = [i for i, word in enumerate(words) if word != "</s>"]
    target: list[str] = []
    for number, i in enumerate(sorted(rng.sample(open_, min(len(open_), rng.choice((1, 2, 3, 4)))))):
        target += [f"<extra_id_{number}>", words[i]]
        words[i] = f"<extra_id_{number}>"
    return Exchange((*words, "</s>"), (*target, "</s>"), ())
