"""Backbones: frozen language models that a prompt is put in front of.

A backbone knows its tokenizer, its width, how a prompt joins an input (under a layout) and how it answers: a masked
LM scores label words at one slot, T5 scores them as sequences or writes text. Everything else in the project talks
to a backbone through this class; a family of models is one file beside it.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from prompttransfer.backbones.interventions import Interventions, Vectors, interventions
from prompttransfer.backbones.kernels.async_copies import send
from prompttransfer.backbones.kernels.cuda_graphs import PRODUCTS, Graphs, padded
from prompttransfer.backbones.kernels.token_batching import call_tokens, tokens_at_once
from prompttransfer.backbones.label_words import ONE, SEVERAL, Answers, Pieces, choose_answers, head_answers
from prompttransfer.backbones.layouts import USUAL, Encoding, Layout
from prompttransfer.backbones.modules import KnownModules, check_untouched
from prompttransfer.backbones.rows import Batch, Row, _candidates, _shares, cut_texts, pad
from prompttransfer.backbones.templates import TokenFrame
from prompttransfer.backbones.tokens import first_ids, unknown_share
from prompttransfer.distributed.fsdp import held, table_rows, whole
from prompttransfer.distributed.processes import ALONE
from tasks.errors import UserError, unknown
from tasks.task import Example, Task

ROWS_LOOKED_AT = 1000
"""Rows of which the words are looked at, and of each of their texts TEXT_LOOKED_AT characters."""
TEXT_LOOKED_AT = 4000
LONGEST_TEXT = 100_000
"""Most tokens of a text that is a prompt; what fits a model is looked at when rows are encoded."""
FEWEST = 3
"""Different words below which nothing is said of a task: inputs without content, such as N/A, are encoded too."""


class Backbone(ABC):
    """A frozen model with its tokenizer. Nothing of it is ever trained; `digest` proves it."""

    family: str
    generates: bool
    """Whether it can write text (question answering, summarisation)."""

    engines: tuple[str, ...] = ("frozen", "plain")
    """What can run it, the usual first: `frozen`, layers written for frozen weights; `plain`, transformers' modules."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str,
        device: torch.device,
        engine: str | None = None,
    ):
        self.name = name
        self.revision = revision
        self.tokenizer = tokenizer
        self.device = device
        self.processes = ALONE
        """Those that share the rows of this backbone."""
        self.sharded = False
        """Whether they share its weights too, so that each holds only a part of them."""
        self.model = model.to(device).eval().requires_grad_(False)
        self.dtype: torch.dtype = next(model.parameters()).dtype
        """What passes are computed in, and weights are held in but for those in NF4."""
        self.quantised = False
        """Whether the linear maps of the layers are held in NF4 (backbones/kernels/nf4.py)."""
        self.checkpoints = False
        """Whether the inner values of layers are computed again in the backward pass instead of kept."""
        self.records = True
        """Whether calls for training may be recorded and replayed, which only a GPU can (backbones/kernels/cuda_graphs.py)."""
        self._graphs: Graphs | None = None
        self.takes_any = False
        """Whether prompts of other backbones of its width may run on it."""
        self.remarks: tuple[str, ...] = ()
        """What was strange when it was loaded, a line each."""
        self.width = int(self.word_embeddings.embedding_dim)
        self.engine = engine or self.engines[0]
        """Which of `engines` runs it."""
        self._know()
        self.batch_for(device)

    def use(self, engine: str) -> None:
        """Run on `engine` from here on; its weights are laid out if that is the frozen one."""
        if engine not in self.engines:
            raise unknown(f"engine of a {self.family} backbone", engine, self.engines)
        if engine == "frozen" and engine not in self._known:
            check_untouched(self.model, self.name)
            self.lay_out()
            every = dict(self.model.named_modules())
            self._known[engine] = KnownModules(self.model, self.name, every, weights=True)
        self.engine = engine

    def _know(self) -> None:
        """Take the model as it is for the one that was loaded."""
        watched = {name: part for name, part in self.model.named_modules() if name in self.passed_by}
        self._known = {"plain": KnownModules(self.model, self.name, watched, weights=False)}
        self.use(self.engine)

    @contextmanager
    def on(self, engine: str) -> Iterator[None]:
        """Inside the block passes run on `engine`, as where modules are watched or changed on purpose."""
        before = self.engine
        self.use(engine)
        try:
            yield
        finally:
            self.engine = before

    def move(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """Bring the weights to another device, or into another type."""
        self.model.to(device=device, dtype=dtype)
        self.device, self.dtype = device, dtype or self.dtype
        self._graphs = None
        self._know()
        self.batch_for(device)

    def batch_for(self, device: torch.device) -> None:
        """Let as many rows run together as is best on `device` (backbones/kernels/token_batching.py)."""
        self.tokens_at_once = tokens_at_once(device)
        self.call_tokens = call_tokens(device, self.layer_products, self.dtype)

    @property
    def layer_products(self) -> int:
        """Multiply-adds of a layer with its weights, for one token."""
        return 4 * self.state_width**2 + 2 * self.state_width * self.feed_forward

    @property
    def opening(self) -> tuple[str, ...] | None:
        """The tokens that every row of a decoder begins with behind the prompt; None for the other families."""
        return None

    @property
    def state_width(self) -> int:
        """Width of the states in the layers; that of word embeddings is `width`."""
        return self.width

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of token embeddings, [vocabulary, width]."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def check(self) -> None:
        """Raise UserError if the model was changed where its engine does not run the modules themselves."""
        self._known[self.engine].check()

    @property
    def recording(self) -> bool:
        """Whether calls for training are recorded (backbones/kernels/cuda_graphs.py)."""
        return self.records and self.device.type == "cuda" and self.engine == "frozen"

    @property
    def held_bytes(self) -> int:
        """Bytes of weights that this process holds."""
        kept = {id(parameter): parameter for parameter in self.model.parameters()}
        return sum(held(parameter).nbytes for parameter in kept.values())

    @property
    def precision(self) -> str:
        """What its weights are held in, as kept in results: float32, bfloat16, nf4."""
        return "nf4" if self.quantised else str(self.dtype).removeprefix("torch.")

    def embedding_table(self) -> Tensor:
        """The token embeddings as a float32 copy on the CPU, [vocabulary, width]."""
        return whole(self.word_embeddings.weight).detach().float().cpu().clone()

    def word_vectors(self, ids: Tensor) -> Tensor:
        """Rows of that table, [..., width] float32 on the CPU for token ids [...]."""
        rows = whole(self.word_embeddings.weight).detach()[ids.to(self.device)]
        return rows.float().cpu()

    def output_rows(self, ids: Tensor) -> Tensor:
        """Rows of the matrix that states are compared with for an answer, [..., width] for token ids [...]."""
        return table_rows(self.model.get_output_embeddings(), ids)

    @cached_property
    def ordinary_tokens(self) -> tuple[int, ...]:
        """Ids of tokens that stand for text: no special, added or unused ones, in the vocabulary's order."""
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.get_added_vocab().values())
        vocabulary = self.tokenizer.get_vocab()
        rows = self.word_embeddings.num_embeddings
        return tuple(
            sorted(
                index
                for token, index in vocabulary.items()
                if index not in special
                and index < rows
                and any(character.isalpha() for character in token)
                and not token.startswith(("[unused", "<extra_id", "madeupword", "<0x"))
            )
        )

    def digest(self) -> str:
        """sha256 over the names and bytes of all weights as this process holds them; equal before and after a run."""
        sha = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            sha.update(name.encode())
            sha.update(held(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return sha.hexdigest()

    # Words ---------------------------------------------------------------------------------------------------

    def word_pieces(self, word: str) -> Pieces | None:
        """Tokens of `word` as it stands inside a text, that is behind a space; None if they are unknown here."""
        ids = tuple(self.tokenizer(" " + word.strip(), add_special_tokens=False)["input_ids"])
        if not ids or self.tokenizer.unk_token_id in ids:
            return None
        return ids, tuple(self.tokenizer.convert_ids_to_tokens(list(ids)))

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text that stands where a prompt does, in front of the rows."""
        (ids,) = self._tokens([text], LONGEST_TEXT)
        return ids

    @property
    def prompt_end(self) -> tuple[int, ...]:
        """The tokens that such a text ends with beside its words."""
        return ()

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The text that such tokens are."""
        text: str = self.tokenizer.decode(list(ids))
        return text.strip()

    def answers(self, task: Task, encoding: Encoding = USUAL) -> Answers | None:
        """The label words of `task` on this backbone; None for a task without labels."""
        if task.generates:
            return None
        if task.head:
            return head_answers(task)
        return choose_answers(
            task,
            family=self.family,
            backbone=self.name,
            pieces_of=self.word_pieces,
            aggregation=encoding.aggregation,
        )

    # Rows ----------------------------------------------------------------------------------------------------

    def shown(self, row: Row, layout: Layout) -> list[int]:
        """Token ids of a row with its answer filled in, as it stands in front of other rows."""
        return self._filled(row, layout, self._spoken(row))

    def _spoken(self, row: Row) -> tuple[int, ...]:
        """The tokens of a row's right answer: its label word (of a value that of the nearer end), or what is to be written."""
        if row.answers is None:
            return row.target or ()
        label = row.label
        if label is None and row.shares is not None:
            label = max(range(len(row.shares)), key=row.shares.__getitem__)
        return () if label is None else row.answers.pieces[label]

    @abstractmethod
    def _filled(self, row: Row, layout: Layout, answer: tuple[int, ...]) -> list[int]:
        """A row with `answer` where its own would be read or written."""

    def encode(
        self,
        task: Task,
        examples: Sequence[Example],
        encoding: Encoding = USUAL,
        *,
        reserved: int,
    ) -> list[Row]:
        """Tokenise examples once. Only text is ever cut: the `reserved` positions in front of it, mask and special tokens
        have their budget first.

        128 text tokens are kept, and 384 for question answering and summarisation, as in Su et al., where the encoding
        says nothing else; it is lowered to what the model's positions leave free.
        Raises UserError when the task needs text to be written and this backbone cannot write, or when its tokenizer
        knows no word of the examples.
        """
        self.check_task(task)
        answers = self.answers(task, encoding)
        budget = self.text_budget(task, encoding, reserved=reserved)
        keep = budget + 1  # one more than can stay, which says that there was more
        firsts = self._tokens([example.first for example in examples], keep)
        pair = [example.second or "" for example in examples] if any(e.second for e in examples) else None
        seconds = self._tokens(pair, keep) if pair is not None else None
        frame = self.frame(task, encoding)
        rows = []
        for index, example in enumerate(examples):
            second = seconds[index] if seconds is not None else None
            first, second, cut = cut_texts(
                firsts[index], second, budget, keep_first=task.kind == "extractive-qa"
            )
            target = None
            if task.generates and example.references:  # a row to answer has none
                target = self._target(example.references[0])
            shares = task.shares(example)
            rows.append(Row(first, second, example.label, answers, target, cut, frame, shares))
        self._check_known(task, examples, rows)
        return rows

    def check_task(self, task: Task) -> None:
        """Raise UserError if this backbone cannot do the task at all."""
        if task.generates and not self.generates:
            raise UserError(
                f"task {task.name!r} ({task.kind}) needs text to be written, which the {self.family} {self.name} "
                f"cannot do: use a T5 backbone"
            )

    def text_budget(self, task: Task, encoding: Encoding = USUAL, *, reserved: int) -> int:
        """Text tokens that fit, given what is reserved, the special tokens and the model's positions."""
        wanted = encoding.max_length or (384 if task.generates else 128)
        free = self.free_positions(reserved, self.fixed_tokens(task, encoding))
        return wanted if free is None else min(wanted, free)

    def free_positions(self, reserved: int, fixed: int | None = None) -> int | None:
        """Positions left for text behind `reserved` ones and beside `fixed` ones; None where any number is.

        Without `fixed` these are the special tokens.

        Raises UserError where too few are left.
        """
        limit = self.max_positions
        if limit is None:
            return None
        fixed = self.special_tokens if fixed is None else fixed
        free = limit - reserved - fixed
        if free < 8:
            raise UserError(
                f"a prompt or prefix of {reserved} vectors leaves {max(free, 0)} of the {limit} positions of {self.name} for "
                f"text: use one of at most {limit - fixed - 8}"
            )
        return free

    def frame(self, task: Task, encoding: Encoding = USUAL) -> TokenFrame | None:
        """What a decoder reads around the texts of a row; None for the families that read texts alone."""
        return None

    def fixed_tokens(self, task: Task, encoding: Encoding = USUAL) -> int:
        """Positions of a row that neither its texts nor what is reserved can have."""
        return self.special_tokens

    @property
    def pad_id(self) -> int:
        """The token that rows are padded with."""
        return int(self.tokenizer.pad_token_id)

    def _tokens(self, texts: Sequence[str], keep: int) -> list[tuple[int, ...]]:
        return first_ids(self.tokenizer, [" " + text.strip() for text in texts], keep)

    def unknown_share(self, examples: Sequence[Example]) -> float | None:
        """Share of the words of some rows' texts that the tokenizer does not know; None where they have no word."""
        texts = [text for example in examples for text in (example.first, example.second) if text]
        return unknown_share(self.tokenizer, [text[:TEXT_LOOKED_AT] for text in texts])

    def _check_known(self, task: Task, examples: Sequence[Example], rows: Sequence[Row]) -> None:
        """Raise UserError where no word is known; the words themselves are looked at only where tokens say so."""
        unknown = self.tokenizer.unk_token_id
        found = sum(row.first.count(unknown) + (row.second or ()).count(unknown) for row in rows)
        if rows and 2 * found < sum(row.size for row in rows):
            return
        looked_at = examples[:ROWS_LOOKED_AT]
        different = {word for row in looked_at for word in f"{row.first} {row.second or ''}".split()}
        if len(different) >= FEWEST and self.unknown_share(looked_at) == 1.0:
            raise UserError(
                f"all words of task {task.name!r} are unknown to the tokenizer of {self.name} (it reads "
                f"{self.tokenizer.unk_token or 'nothing'}): use a backbone of its language and script"
            )

    def batch(self, rows: Sequence[Row], *, layout: Layout) -> Batch:
        """Pad rows on the right and put their label words beside them."""
        sequences = [self._assemble(row, layout) for row in rows]
        ids = pad(sequences, self.pad_id)
        mask = pad([[1] * len(sequence) for sequence in sequences], 0)
        candidates = averaged = labels = targets = shares = None
        if rows[0].answers is not None:
            candidates, averaged = _candidates([row.answers for row in rows if row.answers is not None])
            labels = torch.tensor([-1 if row.label is None else row.label for row in rows])
            if rows[0].answers.form != ONE:
                shares = _shares(rows, candidates.shape[1])
        else:
            targets = pad([list(row.target or ()) for row in rows], -100)
        values = {"candidates": candidates, "averaged": averaged, "labels": labels, "targets": targets}
        values["shares"] = shares
        return Batch(
            ids=send(ids, self.device),
            mask=send(mask, self.device),
            layout=layout,
            several=rows[0].answers is not None and rows[0].answers.form == SEVERAL,
            recordable=self.recordable(rows),
            **{name: None if value is None else send(value, self.device) for name, value in values.items()},
        )

    def describe(self, row: Row, *, length: int, layout: Layout) -> list[str]:
        """The assembled input of a row, one string a position; the prompt's vectors are `[P1]`, `[P2]`, ..."""
        tokens: list[str] = self.tokenizer.convert_ids_to_tokens(self._assemble(row, layout))
        prompt = [f"[P{index + 1}]" for index in range(length)]
        if layout.mask_is_first_row and self.family == "masked-lm":
            prompt[:1] = [self.tokenizer.mask_token]
        start = self.prompt_start(layout)
        return [*tokens[:start], *prompt, *tokens[start:]]

    def prompt_start(self, layout: Layout) -> int:
        """Tokens of a row that stand in front of the prompt."""
        return layout.start

    @property
    def layers(self) -> int:
        """Number of layers that the prompt goes through."""
        return int(self.model.config.num_hidden_layers)

    @property
    def heads(self) -> int:
        """Attention heads a layer."""
        return int(self.model.config.num_attention_heads)

    @cached_property
    def linear_maps(self) -> dict[str, tuple[int, int]]:
        """Full name -> (in, out) of the linear modules inside the layers, in the model's order."""
        return {
            name: (module.in_features, module.out_features)
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and name.startswith(self.layer_names)
        }

    @property
    def roles(self) -> Mapping[str, str]:
        """query, key, value, narrow (the map that a feed-forward ends with), joint (one for queries, keys and values) -> what
        the full names of those linear maps look like, a regular expression."""
        return {}

    def maps_of(self, *roles: str) -> tuple[str, ...]:
        """Full names of the linear maps of some `roles`, in the model's order; none where it has none such."""
        ends = [self.roles[role] for role in roles if role in self.roles]
        return tuple(name for name in self.linear_maps if any(re.search(end, name) for end in ends))

    @property
    def idle_biases(self) -> tuple[str, ...]:
        """Full names of the linear maps whose bias changes nothing."""
        return ()

    @property
    def neuron_sites(self) -> tuple[tuple[str, ...], str]:
        """Full name of the module of each layer whose output [batch, time, neurons] holds its neurons, and what that is, in
        words."""
        raise UserError(f"the neurons of {self.name} ({self.family}) are not known here")

    @abstractmethod
    def lay_out(self) -> None:
        """Make the frozen engine's layers of the model's weights; its linear modules may then hold views of those."""

    @property
    @abstractmethod
    def passed_by(self) -> tuple[str, ...]:
        """Full names of the modules that the plain engine does not run either, though a pass of transformers would."""

    @property
    def shared_heads(self) -> int:
        """Heads of keys and values a layer; fewer than `heads` where several queries share them."""
        return self.heads

    @property
    def head_width(self) -> int:
        """Width of a key or value of one attention head."""
        return self.state_width // self.heads

    @property
    def attentions(self) -> dict[str, tuple[str, ...]]:
        """Kind (encoder, decoder, cross) -> full names of its attention modules, which take keys and values in front."""
        return {}

    @property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        """attention, feed-forward -> full names of the linear maps that those end with, which adapters stand behind."""
        return {}

    @property
    @abstractmethod
    def layer_names(self) -> tuple[str, ...]:
        """What the full names of all modules inside layers begin with."""

    @property
    @abstractmethod
    def feed_forward(self) -> int:
        """Rows of weights that a feed-forward layer begins with."""

    @property
    def neurons(self) -> int:
        """Neurons of a feed-forward layer; of a gated one each stands for two rows of weights."""
        return self.feed_forward

    # What a family adds --------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def max_positions(self) -> int | None:
        """Usable positions, prompt and special tokens included; None where positions are relative."""

    @property
    @abstractmethod
    def special_tokens(self) -> int:
        """Most special tokens that a row can have."""

    @abstractmethod
    def _assemble(self, row: Row, layout: Layout) -> list[int]:
        """Token ids of a row with its special tokens, without the prompt."""

    @abstractmethod
    def answer_slot(self, length: int, layout: Layout) -> int | None:
        """Position, the prompt of `length` included, at which the answer is read; None where text is written."""

    def answer_slots(self, own: Interventions, batch: Batch) -> Tensor:
        """The same for each row of a batch, [batch]; the first position of what is written where text is."""
        slot = self.answer_slot(own.reserved, batch.layout) or 0
        return torch.full((batch.rows,), slot, device=batch.ids.device)

    @abstractmethod
    def label_scores(self, own: Interventions | Tensor, batch: Batch) -> Tensor:
        """Log-probabilities over the label words only, or the classes of a head, [batch, classes] float32, -inf where a row has
        fewer; log odds of each class where several may be right (`Batch.several`).

        `own` is bound to the rows of `batch`, or is a prompt for each of them, [batch, length, width]. Differentiable in
        what it is made of.
        """

    @abstractmethod
    def word_logits(self, states: Tensor, ids: Tensor) -> Tensor:
        """Logits of the tokens `ids` [words] for states [batch, width] that an answer is read from, [batch, words] float32."""

    def loss(self, own: Interventions | Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each row, [batch] float32: over the label words, or over the tokens to write.

        `own` as in `label_scores`.
        """
        own = interventions(own)
        if not batch.by_head:  # what else is in its bank may not keep a call from being recorded
            own = own.without_head()
        tokens = batch.rows * (batch.ids.shape[1] + own.reserved)
        fits = batch.recordable and tokens * self.layer_products <= PRODUCTS
        # Of a recording only the vectors in front of the text change.
        if not (fits and self.recording and isinstance(own, Vectors) and torch.is_grad_enabled()):
            return self.row_losses(own, batch)
        prompts = own.prompts
        if not prompts.requires_grad:
            return self.row_losses(own, batch)
        self.check()
        self._graphs = self._graphs or Graphs(self.device)
        same = padded(batch, length=prompts.shape[1], most=self.max_positions, pad_id=self.pad_id)

        def row_losses(vectors: Tensor, same: Batch) -> Tensor:
            return self.row_losses(Vectors(vectors), same)

        return self._graphs.loss(row_losses, prompts, same, kind=self.checkpoints)

    def check_recomputes(self, own: Interventions) -> None:
        """Raise UserError where layers would be computed again in the backward pass without what `own` does to them."""
        if self.checkpoints and self.sharded and (own.sites or own.attentions or own.outputs):
            raise UserError(
                "--checkpoint-activations with --strategy fsdp is for prompts alone: leave it out for a method that changes "
                "what layers do"
            )
        if self.checkpoints and own.attentions:
            raise UserError(
                "--checkpoint-activations on engine 'plain' is not for prefixes, since a layer that is computed again does not "
                "know those of the others: leave it out"
            )

    def recordable(self, rows: Sequence[Row]) -> bool:
        """Whether a call for training on these rows can be recorded: all of it runs on the device."""
        return True

    @abstractmethod
    def row_losses(self, own: Interventions, batch: Batch) -> Tensor:
        """What `loss` gives, computed now."""

    def generate(self, own: Interventions | Tensor, batch: Batch, *, max_new_tokens: int) -> list[str]:
        """Write one text a row by greedy decoding."""
        raise UserError(f"{self.name} ({self.family}) cannot write text: use a T5 backbone")

    def _target(self, text: str) -> tuple[int, ...]:
        """Tokens of a text to write, end of sequence included."""
        (ids,) = first_ids(self.tokenizer, [text], 63)
        return (*ids, self.tokenizer.eos_token_id)
