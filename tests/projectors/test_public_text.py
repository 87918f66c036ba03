"""POST: prompts carried by public text, its loss by hand, what it does not look at, and what cannot be carried."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from tiny import examples, prompt, task, tiny_backbone
from typer.testing import CliRunner

from projectors.public_report import CONDITIONS, Looking, report, with_random_source
from projectors.public_state import Keeping
from projectors.public_text import PostSettings, adaptations_of, carry_by_text, meeting, post_loss
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.cli.project import project_app
from prompttransfer.cli.project_distil import read_public
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.records import kept_of
from tasks.task import Example

SHORT = PostSettings(steps=6, batch=8, every=2, lr=0.05)
TEXT = tuple(
    Example(f"the {noun} was {how}")
    for noun in ("film", "food", "plot")
    for how in ("dull", "fresh", "warm", "cold")
)


def both():
    return tiny_backbone(16, 0, "small"), tiny_backbone(24, 1, "wide")


def carry(settings=SHORT, *, prompts=None, text=TEXT, **options):
    source, target = both()
    return carry_by_text(source, target, prompts or [prompt(source, "film", 0)], text, settings, **options)


def log(*shares):
    return torch.tensor([math.log(share) for share in shares])


def test_the_loss_is_the_authors_on_values_by_hand():
    target, target_plain = log(0.5, 0.5), log(0.2, 0.8)
    source, source_plain = log(0.8, 0.2), log(0.5, 0.5)
    plain = replace(SHORT, temperature=1.0, alpha=0.25)
    said = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    # What the prompts change: 5/2 to 5/8 is .8 to .2 in the target, 8/5 to 2/5 is .8 to .2 in the source as well.
    assert post_loss(target, target_plain, source, source_plain, plain).item() == pytest.approx(
        0.75 * said, abs=1e-6
    )
    warm = post_loss(target, target_plain, source, source_plain, replace(SHORT, alpha=0.0)).item()
    assert warm == pytest.approx(4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)), abs=1e-6)


def test_models_meet_in_the_words_that_both_hold_frequent_ones_first():
    source = tiny_backbone(16, 0, words=["film", "food", "plot", "warm"])
    target = tiny_backbone(24, 1, words=["warm", "cold", "food", "film"])
    met = meeting(source, target, 2)
    assert met.words == ("film", "food")
    assert source.tokenizer.convert_ids_to_tokens(met.source.tolist()) == ["film", "food"]
    assert target.tokenizer.convert_ids_to_tokens(met.target.tolist()) == ["film", "food"]


def test_a_prompt_comes_nearer_and_the_best_look_is_kept():
    told = []
    found = carry(replace(SHORT, steps=40, every=10), tell=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [0, 10, 20, 30, 40]
    assert found.losses[0] == pytest.approx(min(loss for _, loss in told))
    assert dict(told)[found.chosen_steps[0]] == pytest.approx(found.losses[0])
    assert found.losses[0] < found.start_losses[0] - 0.01
    assert found.chosen.shape == (1, found.last.shape[1], 24)


def test_the_same_seed_gives_the_same_prompt_and_looking_at_labels_changes_nothing_of_it():
    looked = []

    def look(vectors):
        looked.append(vectors)
        return [float(len(looked) == 2)]

    one, again, other = carry(), carry(look=look), carry(replace(SHORT, seed=1))
    assert torch.equal(one.chosen, again.chosen) and torch.equal(one.last, again.last)
    assert not torch.equal(one.last, other.last)
    assert again.picked_steps == (2,) and torch.equal(again.picked[0], looked[1][0])
    labelled = tuple(replace(row, label=1) for row in TEXT)
    assert torch.equal(carry(text=labelled).last, one.last)


def test_prompts_that_are_carried_together_are_those_that_are_carried_alone():
    source, _ = both()
    given = [prompt(source, "film", 0), prompt(source, "food", 1)]
    together = carry(prompts=given)
    for place, one in enumerate(given):
        torch.testing.assert_close(together.last[place], carry(prompts=[one]).last[0], atol=1e-4, rtol=1e-3)


def test_what_comes_out_is_a_prompt_of_the_target_that_says_where_it_is_from():
    source, target = both()
    given = [prompt(source, "film", 0)]
    found = carry(prompts=with_random_source(given, 0), length=5)
    (made,) = adaptations_of(found, given, target, SHORT, {"text": "twelve rows"})
    assert (made.name, made.task, made.backbone) == (given[0].name, "film", "wide")
    assert tuple(made.vectors.shape) == (5, 24)
    recipe = made.origin.recipe
    assert (recipe["source_digest"], recipe["chosen_step"]) == (given[0].digest, found.chosen_steps[0])


def test_every_condition_stands_beside_the_carried_prompts():
    source, target = both()
    given = [prompt(source, name, 0) for name in ("film", "food")]
    rows = tuple(examples("film"))
    tasks = {name: (task(name), Splits(rows, rows, rows, "rows", "1")) for name in ("film", "food")}
    looking = Looking(
        target, given, {name: (own, splits.validation) for name, (own, splits) in tasks.items()}
    )
    found = carry(prompts=with_random_source(given, 0), look=looking)
    entries = report(target, given, found, tasks, [prompt(target, "film", 3)])
    assert {entry.condition for entry in entries} == set(CONDITIONS)
    scores = {(entry.condition, entry.task): entry.score for entry in entries}
    assert ("own prompt", "food") not in scores and ("carried", "food") in scores
    assert looking(found.chosen[:2]) == [scores["carried", "film"], scores["carried", "food"]]


def test_public_text_is_read_line_by_line_or_as_json(tmp_path):
    plain, rows = tmp_path / "text.txt", tmp_path / "rows.jsonl"
    plain.write_text("one text\n\n  another \n")
    rows.write_text('{"text": "one", "label": "never read"}\n{"text_a": "a", "text_b": "b"}\n')
    assert read_public(plain) == [Example("one text"), Example("another")]
    assert read_public(rows) == [Example("one"), Example("a", "b")]


@pytest.mark.parametrize("stopped", [2, 4])
def test_a_carrying_that_was_killed_goes_on_to_the_same_prompts(tmp_path, stopped):
    def look(vectors):
        return [float(vectors.square().mean())] * len(vectors)

    def tell(step, loss):
        if step == stopped:
            raise KeyboardInterrupt

    steps = []
    keeping = Keeping(tmp_path, going_on=steps.append)
    with pytest.raises(KeyboardInterrupt):
        carry(look=look, tell=tell, keeping=keeping)
    again, whole = carry(look=look, keeping=keeping), carry(look=look)
    assert steps == ([] if stopped == 2 else [2])  # a look is kept when it is over
    for name in ("chosen", "last", "picked"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
    for name in ("chosen_steps", "losses", "start_losses", "picked_steps"):
        assert getattr(again, name) == getattr(whole, name)


def test_kept_work_is_that_of_one_carrying_and_goes_when_it_is_over(tmp_path):
    keeping, other = Keeping(tmp_path), Keeping(tmp_path, beside="other rows")
    for one in (keeping, other):
        carry(keeping=one)
    carry(replace(SHORT, seed=1), keeping=keeping)
    assert len(list(tmp_path.iterdir())) == 3
    keeping.clear()
    assert len(list(tmp_path.iterdir())) == 1
    other.clear()
    assert not list(tmp_path.iterdir())


def test_kept_work_that_was_changed_is_one_line(tmp_path):
    keeping = Keeping(tmp_path)
    carry(keeping=keeping)
    (state,) = tmp_path.iterdir()
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(UserError, match="remove it to begin anew") as error:
        carry(keeping=keeping)
    assert "\n" not in str(error.value)


def pairs_and_texts():
    return (*TEXT, *(replace(row, second="the plot was warm") for row in TEXT))


def test_single_texts_and_pairs_stand_side_by_side():
    assert carry(text=pairs_and_texts()).last.isfinite().all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: carry(text=TEXT[:9]), "public text of 9 rows: give at least 10"),
        (lambda: PostSettings(alpha=1.5), "alpha 1.5"),
        (lambda: PostSettings(temperature=0), "above 0"),
        (lambda: PostSettings(steps=0), "at least 1"),
        (
            lambda: meeting(tiny_backbone(words=["film", "food"]), tiny_backbone(words=["warm", "cold"]), 10),
            "share 0 whole words",
        ),
        (
            lambda: carry(
                prompts=[replace(prompt(both()[0], "film", 0), name="a"), prompt(both()[1], "film", 0)]
            ),
            "width 24",
        ),
    ],
)
def test_what_cannot_be_carried_is_one_line(act, message):
    with pytest.raises(UserError, match=message) as error:
        act()
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two backbones, prompts of two tasks on the small one, the tasks' rows, and public text."""
    root = tmp_path_factory.mktemp("world")
    for backbone in both():
        backbone.model.save_pretrained(root / backbone.name)
        backbone.tokenizer.save_pretrained(root / backbone.name)
    from prompttransfer.backbones.loading import load_backbone

    small = load_backbone(str(root / "small"), precision="fp32")
    for name in ("film", "food"):
        made = prompt(small, name, 0)
        made = replace(made, origin=replace(made.origin, data=kept_of(task(name))))
        save_adaptation(made, root / "prompts" / made.name)
        folder = root / "data" / name
        folder.mkdir(parents=True)
        rows = [
            json.dumps({"text": e.first, "label": ["negative", "positive"][e.label or 0]})
            for e in examples(name)
        ]
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text("\n".join(rows * (3 if split == "train" else 1)))
    (root / "public.txt").write_text("\n".join(row.first for row in TEXT))
    (root / "empty.txt").write_text("\n\n")
    return root


def call(place, *more, text="public.txt", prompts="prompts"):
    given = (
        "distil",
        str(place / prompts),
        "--target-backbone",
        str(place / "wide"),
        "--precision",
        "fp32",
    )
    short = ("--steps", "4", "--evaluate-every", "2", "--batch", "4", "--data", str(place / "data"))
    chosen = () if text is None else ("--text", str(place / text))
    return CliRunner().invoke(project_app, [*given, *chosen, *short, *more])


def test_the_command_writes_prompts_and_says_what_they_are_worth(place, monkeypatch):
    monkeypatch.chdir(place)
    done = call(place, "--output", "made", "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    table = csv.DictReader((place / "made/public-text.csv").open())
    assert {row["condition"]: row["what it is"] for row in table}["tuned constant"].startswith("USES LABELS")
    assert not list((place / "made").glob(".distil*")) and not list((place / "made").glob(".constant*"))
    assert call(place, "--output", "made", "--seed", "1").exception.args[0].endswith("--overwrite")
    record = json.loads(done.stdout)
    assert {entry["condition"] for entry in record["scores"]} == set(CONDITIONS) - {"own prompt"}
    for each in record["prompts"]:
        made = load_adaptation(place / each["folder"])
        assert made.backbone.endswith("wide") and made.origin.recipe["chosen_step"] == each["chosen_step"]


def test_prompts_whose_lengths_differ_as_of_a_sweep_are_told_to_be_carried_apart(
    place, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    found = [load_adaptation(folder) for folder in sorted((place / "prompts").iterdir())]
    first, *others = found
    short = replace(first, tensors={name: tensor[:1] for name, tensor in first.tensors.items()}, initial=None)
    for each in (short, *others):
        save_adaptation(each, tmp_path / "swept" / each.name)
    done = call(place, "--output", "other", prompts=tmp_path / "swept")
    assert isinstance(done.exception, UserError)
    said = str(done.exception)
    assert "cannot be carried together" in said and "give those of one shape" in said
    assert all(each.name in said for each in found) and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("empty.txt", (), "there is no row in it"),
        (None, (), "--text FILE, or --text-tasks"),
        ("public.txt", ("--text-tasks", "film"), "one of the two"),
        (None, ("--text-tasks", "film"), "whose rows are not public"),
    ],
)
def test_mistakes_at_the_command_line_are_one_line(place, monkeypatch, text, more, message):
    monkeypatch.chdir(place)
    done = call(place, *more, "--output", "other", text=text)
    assert isinstance(done.exception, UserError) and message in str(done.exception)
    assert "\n" not in str(done.exception)
