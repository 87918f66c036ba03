"""Activated neurons: what is read, where, that hooks leave no trace, and what is switched off."""

import numpy as np
import pytest
import torch
from conftest import DECODERS
from safetensors.numpy import save_file
from toys import label_task, noise, prompt_on, question_task, sentences
from transformers import AutoModelForCausalLM

from analysis.neurons import overlap, pack
from prompttransfer.adaptations.bank import BareBank, VectorBank
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.running import bank_of
from prompttransfer.backbones.layouts import LAYOUTS, find_layout
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.neurons.capture import (
    activations,
    capture,
    find_site,
    input_in_words,
    over_rows,
    read_activations,
    reading,
    switched_off,
)
from prompttransfer.neurons.states import Captured, load_all, load_states, save_states
from tasks.errors import UserError

KINDS = ("roberta", "bert", "t5", "t5-v1.1")
FIRST = find_layout("prompt-first")


def hooks(backbone):
    return sum(len(module._forward_hooks) for module in backbone.model.modules())


def encoded(backbone, task=None, examples=None, length=3):
    return encode_task(backbone, task or label_task(), examples or sentences(("film",)), reserved=length)


def roberta_by_hand(backbone, vectors, tokens, slot, positions):
    """Intermediate activations of layer 0 from the weights, for one prompt with `tokens` behind it."""
    embeddings, layer = backbone.model.roberta.embeddings, backbone.model.roberta.encoder.layer[0]
    words = torch.cat([vectors, embeddings.word_embeddings(torch.tensor(tokens))])
    inputs = embeddings.LayerNorm(words + embeddings.token_type_embeddings.weight[0] + positions)
    attended = layer.attention(inputs[None])[0]
    return torch.nn.functional.gelu(layer.intermediate.dense(attended))[0, slot]


def test_the_prompt_alone_is_read_at_the_mask_of_prompt_first(tiny):
    backbone, vectors = tiny("roberta"), noise(3, 16)
    tokenizer = backbone.tokenizer
    tokens = [tokenizer.bos_token_id, tokenizer.mask_token_id, tokenizer.eos_token_id]
    positions = backbone.model.roberta.embeddings.position_embeddings.weight[2:8]
    by_hand = roberta_by_hand(backbone, vectors, tokens, 4, positions)
    assert input_in_words(backbone, FIRST) == "P1 .. PL <s> <mask> </s>"
    assert torch.allclose(activations(backbone, VectorBank(vectors[None]), FIRST)[0, 0], by_hand, atol=1e-5)


def test_su2022_reads_the_mask_in_row_one_with_zero_positions_and_one_token_behind(tiny):
    backbone, vectors, layout = tiny("roberta"), noise(3, 16), LAYOUTS["su2022"]
    table = backbone.model.roberta.embeddings
    with_mask = torch.cat([table.word_embeddings.weight[[backbone.tokenizer.mask_token_id]], vectors[1:]])
    positions = torch.cat([torch.zeros(3, 16), table.position_embeddings.weight[5:6]])
    by_hand = roberta_by_hand(backbone, with_mask, [backbone.tokenizer.bos_token_id], 0, positions)
    assert input_in_words(backbone, layout) == "<mask> P2 .. PL <s>"
    assert torch.allclose(activations(backbone, VectorBank(vectors[None]), layout)[0, 0], by_hand, atol=1e-5)


@pytest.mark.parametrize(("kind", "act"), [("t5", None), ("t5-v1.1", "gelu_new")])
def test_t5_is_read_in_the_decoder_at_its_first_step(tiny, kind, act):
    backbone, vectors = tiny(kind), noise(2, 3, 16)
    seen = {}
    feed = backbone.model.decoder.block[1].layer[-1].DenseReluDense
    handle = (feed.wo if act is None else feed.wi_0).register_forward_hook(
        lambda module, inputs, output: seen.update(into=inputs[0], out=output)
    )
    try:
        values = activations(backbone, VectorBank(vectors), FIRST)[:, 1]
    finally:
        handle.remove()
    # v1.0: what reaches wo is ReLU of what is thresholded; v1.1: the gate is act(wi_0).
    expected = seen["into"][:, 0] if act is None else feed.act(seen["out"])[:, 0]
    assert torch.allclose(values.relu() if act is None else values, expected, atol=1e-6)
    assert seen["out"].shape[:2] == (2, 1)
    assert ("wi, before relu" if act is None else "gelu_new(wi_0)") in find_site(backbone).tensor
    assert input_in_words(backbone, FIRST) == "P1 .. PL <extra_id_0>"


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_is_read_behind_its_activation_at_the_last_token_of_each_row(tiny, backbone_folder, kind):
    """By the input of the map that the feed-forward ends with: for a gated layer, that is the gate times the other half."""
    backbone, vectors = tiny(kind), noise(1, 3, 16)
    ends = {"gpt2": "mlp.c_proj", "phi": "mlp.fc2", "opt": "fc2", "gpt_neox": "mlp.dense_4h_to_h"}
    model = AutoModelForCausalLM.from_pretrained(backbone_folder(kind)).eval()
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)
    seen = {}
    last = stack[1].get_submodule(ends.get(kind, "mlp.down_proj"))
    last.register_forward_hook(lambda module, inputs, output: seen.update(narrow=inputs[0]))
    gated = hasattr(stack[1], "mlp") and hasattr(stack[1].mlp, "up_proj")
    if gated:
        stack[1].mlp.up_proj.register_forward_hook(lambda module, inputs, output: seen.update(up=output))
    rows = sentences(("film",))[:3]
    values = [
        mean_activations(backbone, VectorBank(vectors), encoded(backbone, examples=rows[i : i + 1]))[0, 1]
        for i in range(3)
    ]
    together = mean_activations(backbone, VectorBank(vectors), encoded(backbone, examples=rows))[0, 1]
    torch.testing.assert_close(together, torch.stack(values).mean(0), atol=1e-5, rtol=1e-5)
    batch = backbone.batch(encoded(backbone, examples=rows[1:2]).rows, layout=FIRST)
    words = torch.cat([vectors, model.get_input_embeddings()(batch.ids)], dim=1)
    with torch.no_grad():
        model(inputs_embeds=words)
    got = values[1] * seen["up"][0, -1] if gated else values[1]
    wanted = seen["narrow"].flatten(0, -2)[-1]  # OPT puts the tokens of all rows in one line
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert ("gate" in find_site(backbone).tensor) == gated


def test_a_decoder_that_begins_with_no_token_reads_the_last_vector_alone(tiny):
    assert input_in_words(tiny("llama"), FIRST) == "P1 .. PL <s>"
    assert input_in_words(tiny("gpt2"), FIRST) == "P1 .. PL"
    for kind in ("llama", "gpt2"):
        together = activations(tiny(kind), VectorBank(noise(2, 3, 16)), FIRST)
        alone = activations(tiny(kind), VectorBank(noise(2, 3, 16)[1:]), FIRST)
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)
    prefix = parse_method("p-tuning-v2:length=3")
    member = prefix.member(tiny("gpt2"), label_task(), start="random", seed=0)
    for bank in (BareBank(), prefix.bank(tiny("gpt2"), [member])):
        with pytest.raises(UserError, match="average over real rows with --task"):
            activations(tiny("gpt2"), bank, FIRST)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_switching_off_the_neurons_of_a_decoder_leaves_attention_alone(tiny, kind):
    """With all of them off a layer adds nothing but its attention and the biases of its last map."""
    backbone = tiny(kind)
    rows = encoded(backbone)
    own = VectorBank(noise(1, 3, 16))
    before = evaluate_bank(backbone, own, rows)[0]
    seen = []
    last = {"llama": "model.layers.0.mlp.down_proj", "gpt2": "transformer.h.0.mlp.c_proj"}[kind]
    handle = backbone.model.get_submodule(last).register_forward_hook(lambda m, i, o: seen.append(i[0]))
    try:
        with switched_off(backbone, np.ones((3, backbone.neurons), dtype=bool)):
            evaluate_bank(backbone, own, rows)
    finally:
        handle.remove()
    assert seen and all(states.abs().max() == 0 for states in seen)
    assert evaluate_bank(backbone, own, rows)[0] == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_same_states_alone_and_among_others(tiny, kind):
    backbone, vectors = tiny(kind), noise(5, 3, 16)
    together = activations(backbone, VectorBank(vectors), FIRST)
    assert together.shape == (5, 2, 32)
    for index in range(5):
        alone = activations(backbone, VectorBank(vectors[index : index + 1]), FIRST)[0]
        assert torch.allclose(together[index], alone, atol=1e-5)


def mean_activations(backbone, bank, rows):
    return over_rows(backbone, bank, rows, lambda values: values)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_over_rows_is_the_mean_of_single_rows(tiny, kind):
    backbone, vectors, rows = tiny(kind), noise(2, 3, 16), sentences(("film",))[:5]
    single = [
        mean_activations(backbone, VectorBank(vectors), encoded(backbone, examples=(row,))) for row in rows
    ]
    together = mean_activations(backbone, VectorBank(vectors), encoded(backbone, examples=rows))
    assert torch.allclose(together, torch.stack(single).mean(0), atol=1e-5)


def test_a_task_that_is_written_can_be_averaged_over(tiny):
    from tasks.task import Example

    backbone = tiny("t5")
    rows = (Example("who was kind", "the actor was kind", references=("the actor",)),)
    values = mean_activations(backbone, VectorBank(noise(1, 3, 16)), encoded(backbone, question_task(), rows))
    assert values.shape == (1, 2, 32) and values.abs().sum() > 0


def test_capturing_says_rule_input_and_tensor(tiny):
    backbone = tiny("roberta")
    prompts = [prompt_on(backbone, seed=seed) for seed in range(3)]
    captured = capture(backbone, prompts)
    values = activations(backbone, bank_of(backbone, prompts), FIRST)
    assert np.array_equal(captured.states.active(1), (values[:, 1] > 0).numpy())
    assert captured.states.rule == "above 0; P1 .. PL <s> <mask> </s>"
    assert captured.tensor == "intermediate, after gelu, at the mask" and captured.tasks == ("toy",) * 3
    top = capture(backbone, prompts, rule="top", share=0.25, encoded=encoded(backbone))
    assert top.states.active(0).sum(-1).tolist() == [8, 8, 8]
    assert top.states.rule == "most often among the largest 25 % of a layer; 12 rows of toy"


@pytest.mark.parametrize("kind", KINDS)
def test_over_rows_the_states_are_averaged_and_not_the_activations(tiny, kind):
    backbone, prompt, rows = tiny(kind), prompt_on(tiny(kind)), sentences(("film",))[:5]
    each = [
        mean_activations(backbone, bank_of(backbone, [prompt]), encoded(backbone, examples=(r,)))
        for r in rows
    ]
    often = torch.cat(each).gt(0).float().mean(0)
    read = read_activations(backbone, [prompt], encoded=encoded(backbone, examples=rows))
    assert np.allclose(read.often[0], often, atol=1e-6)
    captured = read.states()
    assert captured.states.rule == "above 0 in more than half of the rows; 5 rows of toy"
    for layer in range(2):
        assert np.array_equal(captured.states.active(layer)[0], (often[layer] > 0.5).numpy())


def test_two_rows_against_three_decide_though_the_mean_is_above_zero(tiny):
    # The event must not depend on where the tensor is read: states 1 1 0 0 0 are not active, whatever their size.
    backbone = tiny("t5")
    rows = sentences(("film",))[:5]
    read = read_activations(backbone, [prompt_on(backbone)], encoded=encoded(backbone, examples=rows))
    seldom = (read.values > 0) & (read.often < 0.5)
    assert seldom.any()
    active = np.stack([read.states().states.active(layer) for layer in range(2)], axis=1)
    assert not active[seldom].any()


def test_rows_counted_under_one_rule_are_not_read_under_another(tiny):
    backbone = tiny("roberta")
    read = read_activations(backbone, [prompt_on(backbone)], encoded=encoded(backbone))
    with pytest.raises(UserError, match="counted row by row under the rule positive"):
        read.states("top", 0.25)


def test_a_prompt_of_another_revision_is_refused(tiny):
    backbone = tiny("roberta")
    with pytest.raises(UserError, match=r"trained on .* at old"):
        capture(backbone, [prompt_on(backbone, revision="old")])


def test_an_unknown_rule_is_named(tiny):
    with pytest.raises(UserError, match="'positiv': did you mean 'positive'"):
        capture(tiny("roberta"), [prompt_on(tiny("roberta"))], rule="positiv")


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_gone_after_an_exception_and_the_model_is_unchanged(tiny, kind):
    backbone = tiny(kind)
    before, count = backbone.digest(), hooks(backbone)
    off = np.ones((2, 32), dtype=bool)
    for context in (reading(backbone), switched_off(backbone, off)):
        with pytest.raises(RuntimeError, match="in the middle"), context:
            assert hooks(backbone) == count + 2
            raise RuntimeError("in the middle")
        assert hooks(backbone) == count
    assert backbone.digest() == before


@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_neurons_give_zero_at_every_position(tiny, kind):
    backbone = tiny(kind)
    off = np.zeros((2, 32), dtype=bool)
    off[0, 3] = off[1, 30] = True
    site, seen = find_site(backbone), []
    with switched_off(backbone, off):
        handle = site.modules[0].register_forward_hook(lambda m, i, o: seen.append(o))
        activations(backbone, VectorBank(noise(1, 3, 16)), FIRST)
        handle.remove()
    assert seen[0][..., 3].abs().max() == 0 and seen[0][..., 4].abs().min() > 0


def test_no_neuron_off_changes_no_score_and_all_off_changes_it(tiny):
    backbone, prompt = tiny("roberta"), prompt_on(tiny("roberta"))
    rows = encoded(backbone)
    plain = evaluate_bank(backbone, VectorBank(prompt.vectors[None]), rows)[0]
    with switched_off(backbone, np.zeros((2, 32), dtype=bool)):
        untouched = evaluate_bank(backbone, VectorBank(prompt.vectors[None]), rows)[0]
    # On the frozen engine the last layer runs at the answer slot only: the same values but for float rounding.
    assert untouched.values == plain.values and untouched.loss == pytest.approx(plain.loss, rel=1e-5)
    with switched_off(backbone, np.ones((2, 32), dtype=bool)):
        assert evaluate_bank(backbone, VectorBank(prompt.vectors[None]), rows)[0].loss != pytest.approx(
            plain.loss, abs=1e-4
        )
    assert evaluate_bank(backbone, VectorBank(prompt.vectors[None]), rows)[0] == plain


def test_neurons_of_another_depth_are_refused(tiny):
    with (
        pytest.raises(UserError, match="neurons of 3 layers"),
        switched_off(tiny("roberta"), np.ones((3, 32), bool)),
    ):
        pass


def some_states(backbone="a (1)", names=("x", "y"), rule="above 0; alone"):
    active = np.random.default_rng(0).random((len(names), 2, 11)) > 0.5
    return Captured(pack(active, names, backbone, rule), tasks=names, tensor="somewhere")


def test_states_are_kept_as_bits_and_compared_without_a_model(tmp_path):
    captured = some_states()
    again = load_states(save_states(captured, tmp_path / "s.safetensors"))
    assert np.array_equal(again.states.bits, captured.states.bits) and again.states.neurons == 11
    assert (again.tasks, again.tensor, again.states.rule) == (
        captured.tasks,
        captured.tensor,
        captured.states.rule,
    )
    assert overlap(again.states).equals(overlap(captured.states))


def test_states_of_another_backbone_are_one_clear_error(tmp_path):
    one = save_states(some_states(), tmp_path / "one.safetensors")
    two = save_states(some_states("b (1)", ("z",)), tmp_path / "two.safetensors")
    with pytest.raises(
        UserError, match=r"x, y and z cannot be compared: backbone 'a \(1\)' against 'b \(1\)'"
    ):
        load_all([one, two])


def test_states_read_on_another_input_are_not_mixed(tmp_path):
    one = save_states(some_states(), tmp_path / "one.safetensors")
    two = save_states(
        some_states(names=("z",), rule="above 0; mean over 3 rows"), tmp_path / "two.safetensors"
    )
    with pytest.raises(UserError, match="rule 'above 0; alone' against 'above 0; mean over 3 rows'"):
        load_all([one, two])


def test_a_file_that_holds_no_states_or_half_of_them_is_named(tmp_path):
    save_file({"bits": np.zeros((1, 1, 1), np.uint8)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors holds no neuron states"):
        load_states(tmp_path / "other.safetensors")
    path = save_states(some_states(), tmp_path / "s.safetensors")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match="cut short"):
        load_states(path)
    with pytest.raises(UserError, match="no such file"):
        load_states(tmp_path / "none.safetensors")


def test_a_damaged_record_is_named_by_its_place(tmp_path):
    save_file({"bits": np.zeros((1, 1, 1), np.uint8)}, tmp_path / "s.safetensors", {"prompttransfer.neurons": '{"format": 1}'})  # fmt: skip
    with pytest.raises(UserError, match="is damaged: backbone"):
        load_states(tmp_path / "s.safetensors")


def test_a_t5_without_a_sentinel_is_told_what_to_do(tiny, monkeypatch):
    backbone = tiny("t5")
    monkeypatch.setattr(backbone.tokenizer, "convert_tokens_to_ids", lambda token: None)
    with pytest.raises(UserError, match=r"no token <extra_id_0>.*--task"):
        activations(backbone, VectorBank(noise(1, 3, 16)), FIRST)


def test_one_reading_gives_states_by_either_rule(tiny):
    backbone = tiny("roberta")
    prompts = [prompt_on(backbone, seed=seed, name=f"p{seed}") for seed in range(2)]
    reading = read_activations(backbone, prompts)
    assert reading.values.shape == (2, 2, 32) and reading.shown == "P1 .. PL <s> <mask> </s>"
    assert (reading.states().states.active(0) == (reading.values[:, 0] > 0)).all()
    assert (reading.states("top", 0.25).states.active(1).sum(axis=1) == 8).all()


def test_a_changed_bit_of_states_is_found_and_states_from_before_digests_are_read(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    active = np.random.default_rng(0).random((2, 3, 16)) > 0.5
    path = save_states(Captured(pack(active, ["a", "b"], "toy"), ("t", "t"), "x"), tmp_path / "s.safetensors")
    whole = path.read_bytes()
    with safe_open(path, "np") as file:
        record = {key: value for key, value in file.metadata().items() if key != "sha256"}
    for place in range(8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = load_states(path)
        except UserError:
            continue
        # what is not seen is the name of the digest itself, or white space: all that the file says is as it was
        assert np.array_equal(found.states.bits, np.packbits(active, axis=-1)) and found.states.names == (
            "a",
            "b",
        )
    path.write_bytes(whole)
    save_file(load_file(path), path, metadata=record)
    assert load_states(path).states.names == ("a", "b")
