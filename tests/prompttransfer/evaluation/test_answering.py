"""Rows that each name an adaptation: together they are answered as each would be alone."""

import pytest
from method_texts import LACKS, TEXTS
from toys import adapted, changed, label_task, pair_task, question_task, sentences

from prompttransfer.adaptations.methods import METHODS
from prompttransfer.adaptations.running import bank_of, groups_of
from prompttransfer.evaluation.answering import Answers, Question
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import predict
from tasks.errors import UserError
from tasks.task import Example

TASK, PAIR = label_task(), pair_task()
PAIRS = tuple(Example(row.first, "the room was warm") for row in sentences()[:4])


@pytest.mark.parametrize("kind", ["roberta", "t5"])
def test_rows_of_every_method_and_of_several_tasks_together_are_answered_as_alone(tiny, kind):
    backbone = tiny(kind)
    texts = [text for name in METHODS for text in TEXTS[name] if (kind, name) not in LACKS]
    made = [
        adapted(backbone, text, task=task, seed=seed, name=f"{seed}-{task.name}")
        for seed, text in enumerate(texts)
        for task in (TASK, PAIR)
    ]
    questions = [
        Question(place, task, example)
        for row in range(4)
        for place, one in enumerate(made)
        for task, examples in ((TASK, sentences()), (PAIR, PAIRS))
        if one.task == task.name
        for example in examples[row : row + 1]
    ]
    together = Answers(backbone, made)(questions)
    for place, one in enumerate(made):
        task = TASK if one.task == TASK.name else PAIR
        own = [(q, a) for q, a in zip(questions, together, strict=True) if q.place == place]
        encoded = encode_task(
            backbone, task, [q.example for q, _ in own], reserved=groups_of([one])[0].reserved
        )
        alone = predict(backbone, bank_of(backbone, [one]), encoded)[0][0]
        assert [answer.label for _, answer in own] == [task.labels[index] for index in alone]
        single = Answers(backbone, [one])([Question(0, task, q.example) for q, _ in own])
        for (_, answer), other in zip(own, single, strict=True):
            assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-5)
            assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
            assert (answer.text is None) == (one.method.name == "probe")


def test_the_label_words_are_those_of_the_training_and_another_tasks_are_its_own(tiny):
    backbone = tiny("roberta")
    one = changed(adapted(backbone, "prompt:length=3"), words={"negative": "wrong", "positive": "fine"})
    answers = Answers(backbone, [one])
    own, other = answers([Question(0, TASK, sentences()[0]), Question(0, label_task("new"), sentences()[0])])
    assert {"negative": "wrong", "positive": "fine"}[own.label] == own.text
    assert {"negative": "terrible", "positive": "great"}[other.label] == other.text


def test_a_backbone_that_writes_writes(tiny):
    backbone, task = tiny("t5"), question_task()
    one = adapted(backbone, "prompt:length=3")
    mixed = [
        Question(0, task, Example("who was kind", "the actor was kind")),
        Question(0, TASK, sentences()[0]),
    ]
    written, chosen = Answers(backbone, [one])(mixed)
    assert written.label is None and written.probabilities == {} and isinstance(written.text, str)
    assert chosen.label in TASK.labels


def test_an_adaptation_of_another_backbone_is_refused(tiny):
    with pytest.raises(UserError, match="was trained on"):
        Answers(tiny("bert"), [adapted(tiny("roberta"), "lora:rank=2")])
