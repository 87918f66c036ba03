"""Task embeddings, sources by nearest rows, and what a whole transfer from a library comes to."""

import pytest
import torch
from toys import Watcher, adapted, changed, label_task, noise, prompt_on, recipe, sentences, splits, stop
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from prompttransfer.adaptations.adaptation import PROMPT_KEY, same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.starts import Retrieve
from prompttransfer.backbones.layouts import LAYOUTS, USUAL
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from prompttransfer.transfers.indicators import Compared, indicator_table
from prompttransfer.transfers.library import AVERAGE, BEST, SCRATCH, SCRATCH_ALL, from_library
from prompttransfer.transfers.nearest_rows import pooled_states, shares_of_votes
from prompttransfer.transfers.retrieval import as_embeddings, check_retrieve, retrieve
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError

PROMPT = parse_method("prompt:length=3")
TASK = label_task("toy")


def trained(tiny, options=None, **values):
    jobs = [Job(TASK, splits(), seed, name=f"toy-s{seed}") for seed in (0, 1)]
    runs = train_adaptations(tiny("roberta"), jobs, recipe(**values), method=PROMPT, options=options)
    return [run.adaptation for run in runs]


def source(tiny, task, vectors, *, embedding=None, step=10, **fields):
    """A prompt made by hand, with an embedding of a step."""
    made = changed(prompt_on(tiny("roberta"), task=task), vectors=vectors, name=task, **fields)
    if embedding is None:
        return made
    return changed(made, recipe={"embed_at": step, "steps": 40}, embedding={PROMPT_KEY: embedding})


def pointing(axis):
    """Vectors that all point along one axis."""
    return torch.eye(16)[axis].repeat(3, 1)


def library(folder, sources):
    for each in sources:
        save_adaptation(each, folder / each.name)
    return folder


# Embeddings -------------------------------------------------------------------------------------------------------


def test_an_embedding_is_where_a_shorter_run_ends_and_changes_nothing_else(tiny):
    plain, embedded, short = (trained(tiny, **v) for v in ({}, {"embed_at": 3}, {"steps": 3, "embed_at": 3}))
    for without, own, other in zip(plain, embedded, short, strict=True):
        assert without.embedding is None and without.embedded_at is None
        assert same_tensors(own.tensors, without.tensors) and own.curve == without.curve
        assert own.embedded_at == 3 and same_tensors(own.embedding, other.embedding)
        assert not same_tensors(own.embedding, own.initial)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_an_embedding_outlives_a_stop(tiny, tmp_path, at):
    whole = trained(tiny, embed_at=3)
    with pytest.raises(RuntimeError):
        trained(tiny, TrainingOptions(tmp_path, progress=Watcher(at, stop)), embed_at=3)
    again = trained(tiny, TrainingOptions(tmp_path), embed_at=3)
    for one, other in zip(whole, again, strict=True):
        assert same_tensors(one.embedding, other.embedding) and same_tensors(one.tensors, other.tensors)


def test_an_embedding_is_kept_with_its_step(tiny, tmp_path):
    (own, _) = trained(tiny, embed_at=3)
    folder = save_adaptation(own, tmp_path / "a")
    again = load_adaptation(folder)
    assert same_tensors(again.embedding, own.embedding) and again.embedded_at == 3
    assert "task embedding: the tensors at step 3" in (folder / "README.md").read_text()


def test_an_embedding_of_a_step_that_is_not_taken_is_one_line():
    with pytest.raises(UserError, match="--embed-at 7: the step must be one of the 6 that are taken"):
        recipe(embed_at=7)


# Retrieval --------------------------------------------------------------------------------------------------------


def test_sources_are_compared_by_embeddings_where_all_have_one_of_one_step(tiny, tmp_path):
    """The target looks like the first by its end, and like the second by its embedding."""
    sources = [
        source(tiny, "first", pointing(0), embedding=pointing(1)),
        source(tiny, "second", pointing(1), embedding=pointing(0)),
        source(tiny, "third", pointing(2), embedding=pointing(2) + 0.2 * pointing(0)),
    ]
    target = source(tiny, "toy", pointing(0), embedding=pointing(0))
    start = Retrieve(library(tmp_path / "library", sources), top=2)
    job = Job(TASK, splits(), 0, start, "toy")

    def found(own):
        return retrieve(tiny("roberta"), start, [job], recipe(), USUAL, PROMPT, given=own)[0]

    early = found(target)
    assert early.names == ("second", "third")
    cosine = 0.2 / (1 + 0.2**2) ** 0.5
    assert early.similarities == pytest.approx([1, cosine])
    assert early.weights == pytest.approx([1 / (1 + cosine), cosine / (1 + cosine)])
    assert (early.probe_steps, early.source_steps) == (10, 3 * 40)
    late = found(source(tiny, "toy", pointing(0) + 0.5 * pointing(1)))
    assert late.names == ("first", "second")


def test_embeddings_of_different_steps_are_not_compared(tiny):
    one, other = (source(tiny, "a", noise(3, 16), embedding=noise(3, 16), step=step) for step in (10, 20))
    assert as_embeddings([one, one])[1] == 10
    compared, step, remark = as_embeddings([one, other])
    assert compared == [one, other] and step == 0
    assert remark.startswith(
        "embeddings differ (step 10, step 20): sources are compared by what they are in the end"
    )
    assert as_embeddings([source(tiny, "a", noise(3, 16))])[1:] == (0, "")


def test_a_prompt_of_another_kind_cannot_stand_for_the_target(tiny, tmp_path):
    start = Retrieve(library(tmp_path / "library", [source(tiny, "first", pointing(0))]), top=1)
    job, longer = Job(TASK, splits(), 0, start, "toy"), prompt_on(tiny("roberta"), length=4)
    with pytest.raises(UserError, match="the sources are of prompt:length=3, 'toy-s0' is of prompt:length=4"):
        retrieve(tiny("roberta"), start, [job], recipe(), USUAL, PROMPT, given=longer)


# Nearest rows -----------------------------------------------------------------------------------------------------


def test_rows_vote_for_the_owners_of_their_nearest():
    stored = {"a": torch.tensor([[1.0, 0], [0, 1]]), "b": torch.tensor([[5.0, 1], [-1, 0]])}
    queries = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.5]])
    assert shares_of_votes(queries, stored, nearest=1) == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert shares_of_votes(queries, stored, nearest=4) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("kind", "whole"), [("roberta", AutoModelForMaskedLM), ("t5", AutoModelForSeq2SeqLM)]
)
def test_a_pooled_state_is_the_mean_of_the_last_states_of_one_row(tiny, backbone_folder, kind, whole):
    backbone, rows = tiny(kind), sentences()[:4]
    found = pooled_states(backbone, TASK, rows)
    model = whole.from_pretrained(backbone_folder(kind)).eval()
    inner = model.get_encoder() if kind == "t5" else model.base_model
    for row, own in zip(rows, found, strict=True):
        batch = backbone.batch(backbone.encode(TASK, [row], reserved=0), layout=LAYOUTS["prompt-first"])
        with torch.no_grad():
            expected = inner(input_ids=batch.ids).last_hidden_state.mean(dim=1)[0]
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-4)


def test_sources_are_retrieved_by_rows_without_a_probe(tiny, tmp_path):
    sources = [source(tiny, name, pointing(0)) for name in ("same", "other")]
    start = Retrieve(library(tmp_path / "library", sources), top=1, by="rows")
    job = Job(TASK, splits("film", "food", "room"), 0, start, "toy")
    of_task = {"same": splits("film", "film", "film"), "other": splits("room", "room", "room")}
    targets = [Target(label_task(name), rows) for name, rows in of_task.items()]

    def found(rows_of):
        return retrieve(tiny("roberta"), start, [job], recipe(), USUAL, PROMPT, rows_of=rows_of)[0]

    check_retrieve(start)
    own = found(lambda sources: targets)
    assert own.names == ("same",) and own.probe_steps == 0 and own.weights == (1.0,)
    with pytest.raises(UserError, match="by=rows needs rows of the sources' tasks"):
        found(None)


# From a library to a target ---------------------------------------------------------------------------------------


def test_the_best_of_the_nearest_is_kept_by_validation_beside_scratch(tiny, tmp_path):
    backbone = tiny("roberta")
    sources = [source(tiny, name, noise(3, 16, seed=seed)) for seed, name in enumerate(("a", "b", "c"))]
    start = Retrieve(library(tmp_path / "library", sources), top=2)
    target = source(tiny, "toy", sum(each.vectors for each in sources))
    found = from_library(
        backbone,
        start,
        [Target(TASK, splits())],
        recipe(),
        USUAL,
        PROMPT,
        seeds=(0, 1),
        how="both",
        given=target,
    )
    by_way = {(each.way, each.seed): each for each in found.outcomes}
    assert {way for way, _ in by_way} == {SCRATCH, SCRATCH_ALL, BEST, AVERAGE}
    runs = {run.adaptation.name: run.adaptation for run in found.trained}
    best = by_way[BEST, 0]
    tried = [
        own for name, own in runs.items() if name.endswith("-to-toy-s0") and not name.startswith("average")
    ]
    assert len(tried) == 2
    assert best.validation == max(max(point.score for point in own.curve) for own in tried)
    assert best.test == runs[best.adaptation].scores["test"]["accuracy"]
    assert (best.steps, best.target_steps, best.all_steps) == (6, 12, 12)
    assert by_way[SCRATCH_ALL, 0].steps == 12 and by_way[AVERAGE, 0].target_steps == 6
    summary = {row["way"]: row for row in found.summary()}
    assert summary[SCRATCH]["seeds"] == 2 and summary[SCRATCH]["spread"] is not None
    assert found.to_csv().count("\n") == 1 + len(found.outcomes)


# Prompts of few numbers -------------------------------------------------------------------------------------------


def low(tiny, text, seed, latent):
    return changed(adapted(tiny("roberta"), text, seed=seed, name=f"p{seed}"), encoder={"latent": latent})


def test_low_dimensional_prompts_are_compared_by_their_numbers(tiny):
    """cos of (3, 4) and (4, 3) laid over the rows; the vectors themselves are not looked at."""
    one = low(tiny, "ulpt:length=3,rank=2", 0, torch.tensor([[3.0, 4], [0, 0], [0, 0]]))
    other = low(tiny, "ulpt:length=3,rank=2", 1, torch.tensor([[4.0, 3], [0, 0], [0, 0]]))
    table = indicator_table("z-C_concat", Compared((one, other)))
    assert table.loc["p0", "p1"] == pytest.approx(24 / 25)
    assert indicator_table("z-C_average", Compared((one, other))).loc["p0", "p1"] == pytest.approx(
        24 / 25 / 9
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ulpt:length=3,rank=4,basis=1", "z-C_concat compares z of one basis, rank and length: 'p0' is ulpt"),
        ("ulpt:length=3,rank=3", "'p1' is ulpt:length=3,rank=3; by their vectors .* --metric C_concat"),
        ("prompt:length=3", "z-C_concat compares z of prompts of ulpt, and 'p1' .* has none"),
    ],
)
def test_numbers_of_other_matrices_are_not_compared(tiny, text, message):
    given = low(tiny, "ulpt:length=3,rank=4", 0, noise(3, 4)), low(tiny, text, 1, noise(3, 4))
    with pytest.raises(UserError, match=message):
        indicator_table("z-C_concat", Compared(given))
