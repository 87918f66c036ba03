"""Where a prompt starts: seeded, at the scale of the embeddings, never from special tokens."""

import pytest
import torch
from toys import label_task, noise, question_task

from prompttransfer.adaptations.initialisers import INITIALISERS, initial_vectors
from tasks.errors import UserError

TASK = label_task()


def rows_of(vectors, backbone):
    """Token of each vector, None where it is no row of the embedding table."""
    table = backbone.embedding_table()
    found = [(table == vector).all(dim=1).nonzero().flatten().tolist() for vector in vectors]
    return [backbone.tokenizer.convert_ids_to_tokens(ids[0]) if ids else None for ids in found]


@pytest.mark.parametrize("kind", ["roberta", "bert", "t5"])
@pytest.mark.parametrize("spec", ["random", "vocabulary", "label-words", "text:the film was great"])
def test_every_initialiser_gives_finite_float32_of_the_asked_shape(tiny, kind, spec):
    vectors = initial_vectors(spec, tiny(kind), TASK, length=6, seed=0)
    assert vectors.shape == (6, 16) and vectors.dtype == torch.float32
    assert torch.isfinite(vectors).all()


@pytest.mark.parametrize("spec", ["random", "vocabulary", "label-words"])
def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(tiny, spec):
    first, again, other = (initial_vectors(spec, tiny("roberta"), TASK, length=6, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_has_the_scale_of_the_embeddings(tiny):
    backbone = tiny("roberta")
    vectors = initial_vectors("random", backbone, TASK, length=2000, seed=0)
    wanted = backbone.embedding_table()[list(backbone.ordinary_tokens)].std()
    assert vectors.std() == pytest.approx(float(wanted), rel=0.02)
    assert vectors.mean() == pytest.approx(0.0, abs=float(wanted) / 50)


@pytest.mark.parametrize("kind", ["roberta", "bert", "t5"])
def test_vocabulary_draws_distinct_ordinary_tokens_and_no_special_ones(tiny, kind):
    backbone = tiny(kind)
    tokens = rows_of(initial_vectors("vocabulary", backbone, TASK, length=51, seed=0), backbone)
    assert None not in tokens
    assert len(set(tokens)) == 51
    assert not set(tokens) & set(backbone.tokenizer.all_special_tokens)


def test_vocabulary_says_when_there_are_too_few_tokens(tiny):
    with pytest.raises(UserError, match="51 ordinary tokens, fewer than a prompt of 52"):
        initial_vectors("vocabulary", tiny("roberta"), TASK, length=52, seed=0)


def test_label_words_come_first_and_ordinary_tokens_behind(tiny):
    backbone = tiny("roberta")
    tokens = rows_of(initial_vectors("label-words", backbone, TASK, length=4, seed=0), backbone)
    assert tokens[:2] == ["terrible", "great"]
    assert None not in tokens[2:]
    assert rows_of(initial_vectors("label-words", backbone, TASK, length=1, seed=0), backbone) == ["terrible"]


def test_label_words_need_labels(tiny):
    with pytest.raises(UserError, match="no label words: use the initialiser 'vocabulary'"):
        initial_vectors("label-words", tiny("t5"), question_task(), length=4, seed=0)


@pytest.mark.parametrize("kind", ["roberta", "bert", "t5"])
def test_text_is_repeated_and_cut_and_has_no_special_tokens(tiny, kind):
    backbone = tiny(kind)
    tokens = rows_of(initial_vectors("text:the film was", backbone, TASK, length=5, seed=0), backbone)
    assert tokens == ["the", "film", "was", "the", "film"]


@pytest.mark.parametrize("spec", ["text", "text:"])
def test_an_initialiser_without_its_argument_is_refused(tiny, spec):
    with pytest.raises(UserError, match="needs an argument"):
        initial_vectors(spec, tiny("roberta"), TASK, length=3, seed=0)


def test_text_of_nothing_is_refused(tiny):
    with pytest.raises(UserError, match="got no words"):
        initial_vectors("text:  ", tiny("roberta"), TASK, length=3, seed=0)


def test_unknown_initialisers_and_empty_prompts_are_refused(tiny):
    with pytest.raises(UserError, match="did you mean 'vocabulary'"):
        initial_vectors("vocabulry", tiny("roberta"), TASK, length=3, seed=0)
    with pytest.raises(UserError, match="at least 1 vector"):
        initial_vectors("random", tiny("roberta"), TASK, length=0, seed=0)
    assert set(INITIALISERS) == {"random", "vocabulary", "label-words", "text"}


def test_the_initial_vectors_do_not_depend_on_the_task(tiny):
    # Prompts of one seed share their start, so that differences from it can be compared.
    first, second = (
        initial_vectors("random", tiny("roberta"), label_task(n), length=3, seed=0) for n in "ab"
    )
    assert torch.equal(first, second)


def test_changing_initial_vectors_leaves_the_backbone_alone(tiny):
    backbone = tiny("roberta")
    before = backbone.digest()
    initial_vectors("vocabulary", backbone, TASK, length=6, seed=0).add_(noise(6, 16))
    assert backbone.digest() == before
