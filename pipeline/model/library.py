"""Models of any architecture that transformers computes, behind the interface of `GPT`.

Our own families are the fast path; everything else (BERT, DistilBERT, T5, Gemma, Phi, ...) is computed by transformers,
an optional extra (`make setup-open`). Tasks, tuners, training, evaluation and serving use a `LibraryModel` as
they use a `GPT`:

    decoder          predicts the next token; a classifier reads the last one        Gemma, Phi, OPT, GPT-NeoX
    encoder          no language head; a classifier reads its pooled states          BERT, DistilBERT, RoBERTa
    encoder_decoder  reads the prompt with its encoder, answers with its decoder     T5, BART

A decoder's head is more than a matrix in some architectures (a soft cap, a scale). `logits` applies the ones it knows,
and `require_equal_logits` compares with the library's own on a few ids when a model is read.

Names of weights are the library's behind `net.`, so adapters and checkpoints map to peft and transformers by name.

Shapes: B examples, T tokens, D model width, V vocabulary, C classes, N wanted positions.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.model.cache import KeyValue
from pipeline.model.capture import Capture
from pipeline.model.cpu.length_groups import length_groups
from pipeline.model.gpt import GPT
from pipeline.model.layout import ForwardInputs
from pipeline.model.library_sizes import Architecture, attention_part, library_config, stacks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLASSIFIER = "ForSequenceClassification"
_TABLES = re.compile(r"embed|wpe|wte|shared|position", re.IGNORECASE)
_PROBE = 7  # ids of the comparison of logits
_TOLERANCE = 1e-3  # of logits of order 10 in float32


class Weights(nn.Module):
    """Some of a model's weights as a module: they can be frozen, trained and listed together."""

    def __init__(self, weights: Sequence[nn.Parameter], out_features: int = 0) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)
        self.out_features = out_features


class LibraryModel(GPT):
    """A model that transformers computes. Of `GPT` it keeps the interface; the network is `net`."""

    def __init__(self, net: "PreTrainedModel", architecture: Architecture) -> None:
        nn.Module.__init__(self)  # the network of GPT is not built
        self.net = net
        self.config = library_config(net, architecture)
        self.architecture: Architecture = architecture
        self.dropout, self.static_shapes = 0.0, False
        self.virtual, self.capture = None, None

    # -- the parts of the network, by the names that tuners use ------------------------------------------------------

    @property
    def base(self) -> nn.Module:
        """The network without its heads."""
        base: nn.Module = self.net.base_model
        return base

    @property
    def embed(self) -> nn.Embedding:  # type: ignore[override]  # found in the network, not a module of this one
        """The token embeddings."""
        table = self.net.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        """The blocks, those of the encoder before those of the decoder."""
        return nn.ModuleList(block for blocks in stacks(self.base).values() for block in blocks)

    @property
    def head(self) -> nn.Module | None:  # type: ignore[override]
        """The language head; None in a classifier and in an encoder."""
        if self.is_classifier or self.architecture == "encoder":
            return None
        net: Any = self.net
        head: nn.Module | None = net.get_output_embeddings()
        return head

    @property
    def is_classifier(self) -> bool:
        """Whether the network has a classification head."""
        return type(self.net).__name__.endswith(CLASSIFIER)

    @property  # type: ignore[override]  # weights of any shape, not one linear layer
    def score(self) -> Weights | None:
        """The weights of the classification head."""
        if not self.is_classifier:
            return None
        return Weights([p for _, p in self.head_weights()], self.net.config.num_labels or 0)

    @score.setter  # type: ignore[override]  # only None
    def score(self, value: None) -> None:
        if value is not None or self.is_classifier:
            raise UserError(
                f"this {self.config.family} model is a classifier without a language head; start from a language model "
                "instead"
            )

    @property
    def positions(self) -> Weights:  # type: ignore[override]
        """Weights beside the token embeddings before the first block: positions, token types, their norm."""
        return Weights([p for name, p in self._rest() if _TABLES.search(name)])

    @property
    def final_norm(self) -> Weights:  # type: ignore[override]
        """Weights of the base behind the blocks: final norms, a pooler."""
        return Weights([p for name, p in self._rest() if not _TABLES.search(name)])

    def head_weights(self) -> list[tuple[str, nn.Parameter]]:
        """(name in `net`, weight) of the classification head: all that is not in the base, and a pooler that is new."""
        inside = {id(p) for p in self.base.parameters()}
        new: set[str] = getattr(self, "_new", set())
        return [(name, p) for name, p in self.net.named_parameters() if id(p) not in inside or name in new]

    def head_modules(self) -> list[str]:
        """The modules of the classification head by peft's `modules_to_save`: `classifier`, `pre_classifier`."""
        names = []
        for name, _ in self.head_weights():
            parts = name.split(".")
            names.append(parts[1] if parts[0] == self.net.base_model_prefix else parts[0])
        return list(dict.fromkeys(names))

    def projections(self) -> list[str]:
        """Names of the linear layers of all blocks, wrapped or not: `net.bert.encoder.layer.0.attention.self.query`."""
        inside = [f"{stack}.{i}." for stack, blocks in stacks(self.base).items() for i in range(len(blocks))]
        prefix = "net." if self.base is self.net else f"net.{self.net.base_model_prefix}."
        names = [
            f"{prefix}{name}"
            for name, module in self.base.named_modules()
            if isinstance(module, nn.Linear) and any(name.startswith(place) for place in inside)
        ]
        return [name.removesuffix(".base") for name in names]

    @property
    def last_projections(self) -> list[str]:
        """The last projection of attention and of the MLP in every block, by registration order."""
        last: dict[tuple[str, bool], str] = {}
        for name in self.projections():
            block = re.match(r".*?\.\d+\.", name)
            assert block is not None
            last[block.group(), attention_part(name.removeprefix(block.group()))] = name
        return list(last.values())

    # -- the passes -----------------------------------------------------------------------------------------------

    def hidden(self, ids_BT: Tensor | None = None, **inputs: Unpack[ForwardInputs]) -> Tensor:
        """Last hidden states [B, T, D], or at `wanted_BT` [N, D]; arguments as in `GPT.hidden`.

        Of an encoder-decoder only at wanted positions, and of its decoder: the ids up to the first wanted position are
        the prompt, which the encoder reads, and the rest is the answer.

        Raises:
            UserError: an argument that only our own families compute.
        """
        for name in ("segments_BT", "prefix", "cache", "positions_BT"):
            if inputs.get(name) is not None:
                raise self._only_own(_USES[name])
        wanted_BT, mask = inputs.get("wanted_BT"), inputs.get("mask")
        if self.architecture == "encoder_decoder":
            if wanted_BT is None or ids_BT is None:
                raise self._only_own("a text without a prompt (task instruct has one)")
            return self._answer_states(ids_BT, wanted_BT)
        x_BTD = self._states(ids_BT, inputs.get("embeddings_BTD"), mask)
        return x_BTD if wanted_BT is None else x_BTD[wanted_BT]

    def logits(self, x: Tensor) -> Tensor:
        """The language head: [..., D] -> [..., V]. Raises UserError in a model without one."""
        if self.head is None:
            raise UserError(
                f"this {self.config.family} model has no language head ({self.architecture}); start from a language "
                "model, or use task classify"
            )
        config = self.net.config
        if self.architecture == "encoder_decoder" and _scales_outputs(config):
            x = x * config.d_model**-0.5
        logits: Tensor = self.head(x)
        if (bias := getattr(self.net, "final_logits_bias", None)) is not None:
            logits = logits + bias
        logits = logits * getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def classify(
        self,
        ids_BT: Tensor | None = None,
        mask_BT: Tensor | None = None,
        *,
        embeddings_BTD: Tensor | None = None,
        prefix: Sequence[KeyValue] | None = None,
    ) -> Tensor:
        """Class scores [B, C], as the library's classifier gives them; arguments and errors as in `GPT.classify`."""
        if not self.is_classifier:
            raise UserError("this model has no classification head; fine-tune it with task classify first")
        if prefix is not None:
            raise self._only_own(_USES["prefix"])
        if ids_BT is None or mask_BT is None or not self._trains_on_cpu(ids_BT):
            return self._scores(ids_BT, mask_BT, embeddings_BTD)
        groups = length_groups(mask_BT)
        scores_BC = torch.cat([self._scores(ids_BT[rows, :n], mask_BT[rows, :n], None) for rows, n in groups])
        return scores_BC[torch.cat([rows for rows, _ in groups]).argsort()]

    def advance(self, ids_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Generation: the hidden states [B, D] from which the next token follows, and the state of the next call.

        Args:
            ids_BT: the prompts, all of one length; later the newest token of each, [B, 1].
            state: that the call before returned; None: `ids_BT` are prompts.
        """
        if self.architecture == "encoder":
            raise UserError(f"a {self.config.family} model is an encoder and generates no text; use a decoder")
        if self.architecture == "decoder":
            output = self.base(input_ids=ids_BT, past_key_values=state, use_cache=True)
            return output.last_hidden_state[:, -1], output.past_key_values
        if state is None:
            sources_BT, read_BT = self._sources([row.tolist() for row in ids_BT], ids_BT.device)
            encoded, past = self._encode(sources_BT, read_BT), None
            ids_BT = torch.full((len(ids_BT), 1), self._starts, device=ids_BT.device)
        else:
            encoded, past, read_BT = state
        output = self._decode(ids_BT, encoded, read_BT, past_key_values=past, use_cache=True)
        return output.last_hidden_state[:, -1], (encoded, output.past_key_values, read_BT)

    def add_score(self, n_labels: int, generator: torch.Generator) -> None:
        """Makes the network transformers' classifier of so many classes; the base keeps its weights.

        Raises:
            UserError: an architecture without a classifier in transformers.
        """
        import transformers

        if self.architecture == "encoder_decoder":
            raise UserError(
                f"a {self.config.family} model reads with an encoder and answers with a decoder; use task instruct, or "
                "start from an encoder or a decoder for task classify"
            )
        config = type(self.net.config).from_dict(self.net.config.to_dict())
        config.num_labels = n_labels
        device = self.embed.weight.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
            try:
                auto: Any = transformers.AutoModelForSequenceClassification
                network = auto.from_config(config)
            except ValueError:
                raise UserError(
                    f"transformers has no classifier for {self.config.family}; take task cloze, or start from another "
                    "architecture"
                ) from None
        weights = {f"{network.base_model_prefix}.{name}": value for name, value in self.base.state_dict().items()}
        missing = network.load_state_dict(weights, strict=False).missing_keys
        self.net = network.to(device).train(self.training)
        self._new = {name for name in missing if name.startswith(f"{network.base_model_prefix}.")}

    @contextmanager
    def capturing(self, capture: Capture) -> Iterator[Capture]:
        """As `GPT.capturing`, for a capture that records nothing. Raises UserError for any other."""
        if capture.hidden_layers or capture.attention_layers:
            raise self._only_own(
                "recorded attention or hidden states (loss attention, distill.hidden, measure attention)"
            )
        yield capture

    def room(self, _prefix: Sequence[KeyValue] | None = None) -> int:
        """The number of positions."""
        return self.config.context_length

    def tie(self) -> None:
        """The library ties weights itself."""

    def _only_own(self, subject: str) -> UserError:
        return UserError(
            f"{subject}: computed for our own families only, and this is a {self.config.family} model, which "
            "transformers computes"
        )

    @property
    def _starts(self) -> int:
        """The id that a decoder starts with."""
        return int(self.net.config.decoder_start_token_id)

    def _states(self, ids_BT: Tensor | None, embeddings_BTD: Tensor | None, mask: Tensor | None) -> Tensor:
        given = {"input_ids": ids_BT} if embeddings_BTD is None else {"inputs_embeds": embeddings_BTD}
        cache = {"use_cache": False} if self.architecture == "decoder" else {}
        x_BTD: Tensor = self.base(**given, attention_mask=_library_mask(mask), **cache).last_hidden_state
        return x_BTD

    def _trains_on_cpu(self, ids_BT: Tensor) -> bool:
        """Whether nothing but the scores is needed of a pass on a CPU, and equal bits in every batch are not."""
        return torch.is_grad_enabled() and ids_BT.device.type == "cpu" and self.capture is None

    def _scores(self, ids_BT: Tensor | None, mask_BT: Tensor | None, embeddings_BTD: Tensor | None) -> Tensor:
        if self.architecture == "decoder":
            return self._last_scores(ids_BT, mask_BT, embeddings_BTD)
        given = {"input_ids": ids_BT} if embeddings_BTD is None else {"inputs_embeds": embeddings_BTD}
        scores_BC: Tensor = self.net(**given, attention_mask=_library_mask(mask_BT)).logits
        return scores_BC

    def _last_scores(self, ids_BT: Tensor | None, mask_BT: Tensor | None, embeddings_BTD: Tensor | None) -> Tensor:
        """Scores at the last real token, where the library's classifiers of decoders read them."""
        tokens = ids_BT if embeddings_BTD is None else embeddings_BTD
        assert tokens is not None
        x_BTD = self._states(ids_BT, embeddings_BTD, mask_BT)
        index_T = torch.arange(tokens.shape[1], device=tokens.device)
        last_B = index_T[-1:].expand(len(tokens)) if mask_BT is None else (index_T * mask_BT).argmax(dim=1)
        head: Any = self.net.score
        scores_BC: Tensor = head(x_BTD[torch.arange(len(tokens), device=tokens.device), last_B])
        return scores_BC

    def _sources(self, prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """Prompts for the encoder, each with its end token, padded on the right; and their mask."""
        config = self.net.config
        end = [config.eos_token_id] if isinstance(config.eos_token_id, int) else []
        rows = [[*prompt, *([] if list(prompt[-1:]) == end else end)] for prompt in prompts]
        longest, pad = max(map(len, rows)), config.pad_token_id or 0
        ids = [[*row, *[pad] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _answer_states(self, ids_BT: Tensor, wanted_BT: Tensor) -> Tensor:
        """The decoder's states at the wanted positions, [N, D]: each predicts the id after its position."""
        firsts = wanted_BT.int().argmax(dim=1).tolist()
        sources_BT, mask_BT = self._sources(
            [row[: first + 1].tolist() for row, first in zip(ids_BT, firsts, strict=True)], ids_BT.device
        )
        # position `first` becomes the decoder's start; the ids after it follow
        length = max(ids_BT.shape[1] - first for first in firsts)
        answers_BT = ids_BT.new_full((len(ids_BT), length), self._starts)
        kept_BT = torch.zeros_like(answers_BT, dtype=torch.bool)
        for row, first in enumerate(firsts):
            rest = ids_BT.shape[1] - first
            answers_BT[row, 1:rest] = ids_BT[row, first + 1 :]
            kept_BT[row, :rest] = wanted_BT[row, first:]
        encoded = self._encode(sources_BT, mask_BT)
        x_BTD: Tensor = self._decode(answers_BT, encoded, mask_BT, use_cache=False).last_hidden_state
        return x_BTD[kept_BT]

    def _encode(self, sources_BT: Tensor, mask_BT: Tensor) -> Tensor:
        states: Tensor = self.net.get_encoder()(input_ids=sources_BT, attention_mask=mask_BT).last_hidden_state
        return states

    def _decode(self, ids_BT: Tensor, encoded: Tensor, mask_BT: Tensor, **cache: Any) -> Any:
        net: Any = self.net
        return net.get_decoder()(
            input_ids=ids_BT, encoder_hidden_states=encoded, encoder_attention_mask=mask_BT, **cache
        )

    def _rest(self) -> list[tuple[str, nn.Parameter]]:
        """Weights of the base outside of token embeddings and blocks, by name in the base."""
        known = {id(p) for module in (self.embed, *self.blocks) for p in module.parameters()}
        known |= {id(p) for _, p in self.head_weights()} if self.is_classifier else set()
        known |= set() if self.head is None else {id(p) for p in self.head.parameters()}  # T5's is beside its blocks
        return [(name, p) for name, p in self.base.named_parameters() if id(p) not in known]


_USES = {
    "segments_BT": "documents kept apart in a window (task next_token: set mask_documents to false)",
    "prefix": "a learned prefix",
    "cache": "our KV cache",
    "positions_BT": "explicit positions",
}


@torch.no_grad()
def require_equal_logits(model: LibraryModel) -> None:
    """Compares our reading of a model's language head with the library's own, on a few ids.

    Raises:
        UserError: they differ, so the architecture does more than `logits` knows.
    """
    if model.head is None or model.architecture == "encoder":
        return
    vocabulary, device = model.config.vocab_size, model.embed.weight.device
    ids_BT = (torch.arange(1, _PROBE + 1, device=device) * 13 % vocabulary)[None]
    if model.architecture == "decoder":
        theirs, ours = model.net(input_ids=ids_BT).logits[0], model.logits(model.hidden(ids_BT)[0])
    else:
        wanted_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        wanted_BT[:, :3] = False
        ours = model.logits(model.hidden(ids_BT, wanted_BT=wanted_BT))
        sources_BT, mask_BT = model._sources([ids_BT[0, :4].tolist()], device)
        answers_BT = torch.cat((ids_BT.new_full((1, 1), model._starts), ids_BT[:, 4:]), dim=1)
        theirs = model.net(input_ids=sources_BT, attention_mask=mask_BT, decoder_input_ids=answers_BT).logits[0]
    if not torch.allclose(ours, theirs, atol=_TOLERANCE, rtol=_TOLERANCE):
        raise UserError(
            f"a {model.config.family} model's language head computes more than this project knows: its logits differ "
            f"from transformers' by {float((ours - theirs).abs().max()):.3g}; use it for task classify, or start from "
            "another architecture"
        )


def _library_mask(mask: Tensor | None) -> Tensor | None:
    return None if mask is None or bool(mask.all()) else mask.long()


def _scales_outputs(config: Any) -> bool:
    """Whether T5's states are scaled before its head: the library does so where head and embeddings are tied."""
    return bool(getattr(config, "scale_decoder_outputs", config.model_type == "t5" and config.tie_word_embeddings))
