"""Layouts: how a prompt of `length` vectors joins the tokens of an input.

A prompt is only valid under the layout that it was trained with, so the layout is stored beside it and using
another one is an error unless asked for.

    prompt-first   P1 .. PL  <s> <mask> text </s>      the answer is read at <mask>; what PEFT can read (default)
    after-bos      <s>  P1 .. PL  <mask> text </s>     the answer is read at <mask>
    su2022         <mask> P2 .. PL  <s> text </s>      row 1 is overwritten by the embedding of <mask>, the prompt
                                                       gets zero position embeddings, the answer is read at slot 0

T5 has no answer slot: `P1 .. PL text </s>` enters the encoder in `prompt-first` and `su2022` alike. A decoder reads
`P1 .. PL <s> template with text, cue` (<s> where its tokenizer has one), in `after-bos` `<s> P1 .. PL template with text,
cue`, and answers at each row's last position.
Source of su2022: thunlp/Prompt-Transferability 1.0, `modelling_roberta.py` (Su et al., NAACL 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.errors import UserError, unknown


@dataclass(frozen=True)
class Layout:
    """Where the prompt stands and where a masked LM reads its answer."""

    name: str
    start: int = 0
    """Number of tokens in front of the prompt."""
    mask_is_first_row: bool = False
    """The first prompt row is read as `<mask>`; otherwise `<mask>` is a token of its own after `<s>`."""
    zero_positions: bool = False
    """Prompt rows get no position embedding (the text keeps the positions that it has behind the prompt)."""
    families: tuple[str, ...] = ("masked-lm", "t5")


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("prompt-first", families=("masked-lm", "t5", "causal-lm")),
        Layout("after-bos", start=1, families=("masked-lm", "causal-lm")),
        Layout("su2022", mask_is_first_row=True, zero_positions=True),
    )
}


@dataclass(frozen=True)
class Encoding:
    """How the rows of a task meet a backbone: all that has to be equal for two scores to be of the same inputs."""

    layout: str = "prompt-first"
    """One of LAYOUTS."""
    max_length: int | None = None
    """Most text tokens kept; None takes the usual number of the task's kind."""
    aggregation: str | None = None
    """What is made of label words of several tokens (backbones/label_words.py); None refuses them where one must do."""

    template: str | None = None
    """What decoders read instead of each task's own template (tasks/templates.py)."""

    def __post_init__(self) -> None:
        find_layout(self.layout)

    def place(self, family: str) -> Layout:
        """The layout. Raises UserError where a backbone of `family` has no such."""
        return find_layout(self.layout, family)


def find_layout(name: str, family: str | None = None) -> Layout:
    """The layout called `name`; a UserError if there is none, or none for this family of backbones."""
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    layout = LAYOUTS[name]
    if family is not None and family not in layout.families:
        fitting = ", ".join(n for n, other in LAYOUTS.items() if family in other.families)
        raise UserError(f"layout {name!r} is not for a {family} backbone: choose one of {fitting}")
    return layout


USUAL = Encoding()
"""What counts where nothing is said."""
