"""Sources retrieved from a library by their likeness to a probe of the target."""

from pathlib import Path

import pytest
import torch
from toys import adapted, changed, label_task, prompt_on, recipe, splits

from prompttransfer.adaptations.artifacts import save_adaptation
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.starts import From, Retrieve, parse_start
from prompttransfer.backbones.layouts import USUAL
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.transfers.retrieval import check_retrieve, retrieve, with_retrieved
from tasks.errors import UserError

PROMPT = parse_method("prompt:length=3")
KEY = "prompt_embeddings"


def library(folder, adaptations):
    for number, each in enumerate(adaptations):
        save_adaptation(changed(each, name=f"s{number}"), folder / f"s{number}")
    return folder


def prompts(tiny, *seeds, **fields):
    return [prompt_on(tiny("roberta"), task=f"task{seed}", seed=seed, **fields) for seed in seeds]


def job(start):
    return Job(label_task("toy"), splits(), 0, start, "toy")


def test_a_start_says_itself():
    for text in ("retrieve:here,top=3", "retrieve:here,top=2,by=E_concat"):
        assert str(parse_start(text)) == text
    assert parse_start("retrieve:here") == Retrieve(Path("here"), 3)


def test_the_nearest_sources_are_mixed_by_their_similarity(tiny, tmp_path):
    """Against the mean cosine of all pairs of vectors with the same probe, worked out here."""
    backbone = tiny("roberta")
    sources = prompts(tiny, 1, 2, 3, 4)
    start = Retrieve(library(tmp_path / "library", sources), top=2)
    (found,) = retrieve(backbone, start, [job(start)], recipe(), USUAL, PROMPT)
    probe = train_adaptations(
        backbone, [job(parse_start("random"))], recipe(steps=6, evaluate_every=6), USUAL, method=PROMPT
    )[0].adaptation
    one, others = (
        torch.nn.functional.normalize(vectors, dim=-1)
        for vectors in (probe.vectors, torch.stack([each.vectors for each in sources]))
    )
    cosines = {f"s{number}": float((one @ other.T).mean()) for number, other in enumerate(others)}
    best = sorted(cosines, key=lambda name: -cosines[name])[:2]
    assert list(found.names) == best
    assert found.similarities == pytest.approx([cosines[name] for name in best], abs=1e-5)
    kept = [max(value, 0) for value in found.similarities]
    assert found.weights == pytest.approx([value / sum(kept) for value in kept])
    mixed = sum(
        w * sources[int(name[1:])].vectors for name, w in zip(found.names, found.weights, strict=True)
    )
    (made,) = with_retrieved(backbone, [job(start)], recipe(), USUAL, PROMPT)
    own = PROMPT.started(backbone, made.task, made.start, seed=0).tensors()[KEY]
    torch.testing.assert_close(own, mixed)
    assert str(made.start).startswith(f"mixture:{start.folder / best[0]}=")


def test_the_best_alone_is_itself_for_any_method(tiny, tmp_path):
    backbone = tiny("roberta")
    method = parse_method("lora:rank=2")
    sources = [adapted(backbone, "lora:rank=2", task=label_task(f"task{seed}"), seed=seed) for seed in (1, 2)]
    start = Retrieve(library(tmp_path / "library", sources), top=1, by="A-overlap")
    (found,) = retrieve(backbone, start, [job(start)], recipe(), USUAL, method)
    own = found.start.summed()
    assert isinstance(own, From) and found.weights == (1.0,)
    chosen = sources[int(found.names[0][1:])]
    assert all(torch.equal(own.tensors[name], tensor) for name, tensor in chosen.tensors.items())


def test_other_starts_stay(tiny):
    jobs = [job(parse_start("random"))]
    assert with_retrieved(tiny("roberta"), jobs, recipe(), USUAL, PROMPT) == jobs


@pytest.mark.parametrize(
    ("sources", "top", "by", "message"),
    [
        (lambda t: [], 1, "", "no prompt in"),
        (lambda t: prompts(t, 1, 2), 3, "", "there are 2 sources in .*, fewer than top=3"),
        (lambda t: prompts(t, 1), 1, "C_averge", "did you mean 'C_average'"),
        (lambda t: [*prompts(t, 1), adapted(t("roberta"), "lora:rank=2")], 1, "", "of several methods"),
        (lambda t: [adapted(t("roberta"), "lora:rank=2", seed=s) for s in (1, 2)], 2, "", "use top=1"),
    ],
)
def test_a_library_that_cannot_be_is_one_line_before_a_model_is_loaded(
    tiny, tmp_path, sources, top, by, message
):
    (tmp_path / "library").mkdir()
    start = Retrieve(library(tmp_path / "library", sources(tiny)), top, by)
    with pytest.raises(UserError, match=message):
        check_retrieve(start)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            lambda t: [changed(prompts(t, 1)[0], backbone="elsewhere", revision="x")],
            "was trained on elsewhere",
        ),
        (lambda t: [prompt_on(t("roberta"), task="toy")], "0 sources are of other tasks than toy"),
        (lambda t: prompts(t, 1, layout="after-bos"), "under layout 'after-bos': use --layout after-bos"),
        (lambda t: prompts(t, 1, length=4), "the sources are of prompt:length=4"),
    ],
)
def test_sources_that_do_not_fit_are_one_line(tiny, tmp_path, sources, message):
    start = Retrieve(library(tmp_path / "library", sources(tiny)), top=1)
    with pytest.raises(UserError, match=message):
        retrieve(tiny("roberta"), start, [job(start)], recipe(), USUAL, PROMPT)
