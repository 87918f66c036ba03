"""PEFT reads a prompt folder of ours and gives the same logits; we read a folder of PEFT's."""

import json

import pytest
import torch
from safetensors.torch import save_file
from toys import label_task, noise, prompt_on, question_task
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from prompttransfer.adaptations.artifacts import save_adaptation
from prompttransfer.adaptations.exchange import export_prompts, read_foreign
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import LAYOUTS
from tasks.task import Example

peft = pytest.importorskip("peft")

FIRST = LAYOUTS["prompt-first"]
ROWS = (Example("the film was dull", label=0), Example("the room was very bright", label=1))
TASK = label_task()


def write(how, prompt, folder):
    return save_adaptation(prompt, folder) if how == "save" else export_prompts([prompt], folder, "peft")


@pytest.mark.parametrize("how", ["save", "export"])
@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_peft_gives_the_same_masked_lm_logits(tiny, backbone_folder, tmp_path, kind, how):
    backbone = tiny(kind)
    prompt = prompt_on(backbone)
    folder = write(how, prompt, tmp_path / "prompt")
    model = peft.PeftModel.from_pretrained(
        AutoModelForMaskedLM.from_pretrained(backbone_folder(kind)), folder
    ).eval()
    for row in ROWS:
        batch = backbone.batch(backbone.encode(TASK, [row], reserved=3), layout=FIRST)
        with torch.no_grad():
            logits = model(input_ids=batch.ids, attention_mask=batch.mask).logits
            ours = backbone.label_scores(Vectors(prompt.vectors[None]), batch)
            # All logits of the slot, not only the label words', to 1e-5.
            hidden = backbone.answer_state(Vectors(prompt.vectors[None]), batch)
            features, bias = backbone._head(hidden)
        assert logits.shape[1] == batch.ids.shape[1] + 3
        decoder = backbone.model.get_output_embeddings().weight
        torch.testing.assert_close(features @ decoder.T + bias, logits[:, 4], atol=1e-5, rtol=1e-5)
        chosen = backbone.tokenizer.convert_tokens_to_ids(["terrible", "great"])
        torch.testing.assert_close(ours, logits[:, 4, chosen].log_softmax(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", ["save", "export"])
@pytest.mark.parametrize("kind", ["t5", "t5-v1.1"])
def test_peft_gives_the_same_t5_label_scores(tiny, backbone_folder, tmp_path, kind, how):
    backbone = tiny(kind)
    prompt = prompt_on(backbone)
    folder = write(how, prompt, tmp_path / "prompt")
    model = peft.PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(backbone_folder(kind)), folder
    ).eval()
    batch = backbone.batch(backbone.encode(TASK, ROWS, reserved=3), layout=FIRST)
    with torch.no_grad():
        logits = model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            decoder_input_ids=torch.zeros(2, 1, dtype=torch.long),
        ).logits[:, 0]
        ours = backbone.label_scores(Vectors(prompt.vectors.expand(2, -1, -1)), batch)
    chosen = backbone.tokenizer.convert_tokens_to_ids(["terrible", "great"])
    torch.testing.assert_close(ours, logits[:, chosen].log_softmax(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
def test_peft_writes_the_same_text_with_a_decoders_prompt(tiny, backbone_folder, tmp_path, kind):
    backbone, found = tiny(kind), []
    question = Example("who was kind", "the actor in the film was kind", references=("the actor",))
    batch = backbone.batch(backbone.encode(question_task(), [question], reserved=3), layout=FIRST)
    for seed in range(3):
        method = parse_method("prompt:length=3")
        member = method.restored({"prompt_embeddings": 2 * noise(3, 16, seed=seed)})
        folder = tmp_path / f"prompt-{seed}"
        folder.mkdir()
        save_file(member.tensors(), folder / "adapter_model.safetensors")
        config = method.peft_config(family="causal-lm", tensors=member.tensors())
        config |= {"task_type": "CAUSAL_LM", "base_model_name_or_path": kind, "inference_mode": True}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        model = peft.PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(backbone_folder(kind)), folder
        )
        ids = model.eval().generate(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            do_sample=False,
            max_new_tokens=6,
            eos_token_id=backbone.reader.ends,
        )
        own = method.bank(backbone, [member]).rows(torch.tensor([0]))
        found += backbone.generate(own, batch, max_new_tokens=6)
        text = backbone.tokenizer.decode(ids[0, batch.ids.shape[1] :], skip_special_tokens=True)
        assert found[-1] == text.split("\n")[0].strip()
    assert any(found)


def test_the_prompt_matters_to_peft(tiny, backbone_folder, tmp_path):
    # PEFT ignores a prompt silently where the task type is null; this is what FEATURE_EXTRACTION prevents.
    folder = save_adaptation(prompt_on(tiny("roberta")), tmp_path / "prompt")
    base = AutoModelForMaskedLM.from_pretrained(backbone_folder("roberta")).eval()
    ids = torch.tensor([[0, 55, 16, 2]])
    with torch.no_grad():
        bare = base(input_ids=ids).logits[0, 1].clone()
        model = peft.PeftModel.from_pretrained(base, folder).eval()
        with_prompt = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 4]
    assert (bare - with_prompt).abs().max() > 1e-2


@pytest.mark.parametrize("submodules", [1, 2])
def test_of_a_t5_prompt_that_peft_trained_the_encoders_rows_are_taken(
    tiny, backbone_folder, tmp_path, submodules
):
    config = peft.PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=5, num_transformer_submodules=submodules
    )
    model = peft.get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(backbone_folder("t5")), config)
    table = model.prompt_encoder["default"].embedding.weight
    assert len(table) == 5 * submodules
    model.save_pretrained(tmp_path / "peft")
    vectors, facts = read_foreign(tmp_path / "peft")
    assert torch.equal(vectors, table.detach()[:5])
    assert (facts["format"], facts["family"], facts["rows"]) == ("peft", "t5", 5 * submodules)
    # And with those rows we compute what PEFT computes.
    backbone = tiny("t5")
    batch = backbone.batch(backbone.encode(TASK, ROWS, reserved=5), layout=FIRST)
    with torch.no_grad():
        logits = model.eval()(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            decoder_input_ids=torch.zeros(2, 1, dtype=torch.long),
        ).logits[:, 0]
        ours = backbone.label_scores(Vectors(vectors.expand(2, -1, -1)), batch)
    chosen = backbone.tokenizer.convert_tokens_to_ids(["terrible", "great"])
    torch.testing.assert_close(ours, logits[:, chosen].log_softmax(-1), atol=1e-5, rtol=1e-5)


def test_a_peft_folder_with_a_bin_file_is_read(tmp_path):
    vectors = noise(5, 16)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "PROMPT_TUNING", "task_type": "FEATURE_EXTRACTION", "num_virtual_tokens": 5})
    )
    torch.save({"prompt_embeddings": vectors}, tmp_path / "adapter_model.bin")
    got, facts = read_foreign(tmp_path)
    assert torch.equal(got, vectors)
    assert facts["family"] == "masked-lm"
