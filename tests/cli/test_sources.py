"""Adaptations as a command names them: chosen by method, and told apart."""

import pytest
from toys import adapted

from prompttransfer.cli.sources import named_apart, of_methods
from tasks.errors import UserError


def placed(*adaptations):
    return [((f"run-{index}", "same"), each) for index, each in enumerate(adaptations)]


def names(found):
    return [each.name for each in found]


def test_of_one_method_names_stay_and_of_several_each_says_its_own(tiny):
    prompt, lora = (
        adapted(tiny("roberta"), text, name="sst2") for text in ("prompt:length=3", "lora:rank=2")
    )
    other = adapted(tiny("roberta"), "lora:rank=3", name="sst2")
    assert names(named_apart(placed(prompt))) == ["sst2"]
    assert names(named_apart(placed(prompt, lora))) == ["sst2@prompt", "sst2@lora"]
    assert names(named_apart(placed(lora, other))) == ["sst2@lora:rank=2", "sst2@lora:rank=3"]


def test_those_of_one_name_are_told_apart_by_where_they_lie(tiny):
    one, two = (adapted(tiny("roberta"), "lora:rank=2", name="sst2", seed=seed) for seed in (0, 1))
    assert names(named_apart(placed(one, two))) == ["sst2@run-0", "sst2@run-1"]
    inside = [(("mixed", "first"), one), (("mixed", "second"), two)]
    assert names(named_apart(inside)) == ["sst2@first", "sst2@second"]
    with pytest.raises(UserError, match="given twice: sst2; name every one once"):
        named_apart([(("mixed", "first"), one), (("mixed", "first"), one)])


def test_a_method_is_chosen_by_its_name_or_by_the_settings_that_are_given(tiny):
    made = [
        adapted(tiny("roberta"), text, name=text)
        for text in ("prompt:length=3", "lora:rank=2", "lora:rank=2,alpha=5", "lora:rank=3")
    ]
    assert names(of_methods(made, None)) == names(made)
    assert names(of_methods(made, ["lora"])) == names(made[1:])
    assert names(of_methods(made, ["lora:rank=2"])) == names(made[1:3])
    assert names(of_methods(made, ["lora:rank=2,alpha=5", "prompt"])) == [made[0].name, made[2].name]
    with pytest.raises(
        UserError, match="--method lora:rank=9: nothing here is of it; what is given is of prompt"
    ):
        of_methods(made, ["lora:rank=9"])
    with pytest.raises(UserError, match="unknown method 'lroa': did you mean 'lora'"):
        of_methods(made, ["lroa"])
