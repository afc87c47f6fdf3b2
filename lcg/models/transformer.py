# ruff: noqa: F722  (shapes in annotations)
"""Decoder, encoder and encoder–decoder, from the norm to the model of a config.

All are composed in their constructors, by the style of their blocks: `prenorm` is the plain
pre-norm block with RMSNorm and a GELU MLP; `gemma2` is the block of the ASEntmax authors
(2506.16640, after Gemma 2, 2408.00118), with RMSNorms before and after both sublayers, and GeGLU;
`gpt2` is that of GPT-2, with LayerNorms, biases everywhere, and the embedding for a head.

Shapes: b batch, t tokens, s source tokens, q selected positions, w model width, v vocabulary.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcg.attention import Attention
from lcg.attention.cache import NO_CACHE, KVCache, LayerCache, NoCache
from lcg.attention.hooks import learned_tensors, position_ids, returned
from lcg.attention.layer import (
    CrossAttention,
    FullAttention,
    Memory,
    MultiHeadAttention,
    causal_attention,
)
from lcg.attention.mask import ALL
from lcg.attention.mixers import AttentionMixer, FixedLoop, Loop, Mixer
from lcg.config import Config
from lcg.config.compatibility import cross_encoding
from lcg.config.identity import parts as parts_of
from lcg.config.schema import Model
from lcg.positional.base import PositionEncoding, Sizes
from lcg.registry import user_module_of
from lcg.shapes import Bool, Float, Int, Shaped
from lcg.tasks.base import Batch


class RMSNorm(nn.Module):
    """x · rsqrt(mean x² + eps) · (1 + w), w = 0 at the start (1910.07467), computed in float32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (normed * (1 + self.weight.float())).to(x.dtype)


class GELUMLP(nn.Module):
    """W_out · gelu(W_in · x), gelu with the tanh approximation; biases: add them to both."""

    def __init__(self, width: int, hidden: int, biases: bool = False) -> None:
        super().__init__()
        self.input = nn.Linear(width, hidden, bias=biases)
        self.output = nn.Linear(hidden, width, bias=biases)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.gelu(self.input(x), approximate="tanh"))


class GeGLU(nn.Module):
    """W_out · (gelu(W_gate · x) * (W_in · x)), gelu with the tanh approximation (2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.input = nn.Linear(width, hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.gelu(self.gate(x), approximate="tanh") * self.input(x))


class BlockStyle(NamedTuple):
    """The parts that blocks are composed of.

    post_norm: of each sublayer's output. scaled_embedding: by √d_model. biases: of attention's
    projections. tied: the head's matrix is the embedding. init_std: of all matrices, those that
    write to the residual stream divided by √(2·layers); None: see `model.init_std`.
    """

    norm: Callable[[int], nn.Module] = RMSNorm
    mlp: Callable[[int, int], nn.Module] = GELUMLP
    post_norm: Callable[[int], nn.Module] = nn.Identity
    scaled_embedding: bool = False
    biases: bool = False
    tied: bool = False
    init_std: float | None = None


STYLES = {
    "prenorm": BlockStyle(),
    "gemma2": BlockStyle(mlp=GeGLU, post_norm=RMSNorm, scaled_embedding=True),
    "gpt2": BlockStyle(
        nn.LayerNorm, partial(GELUMLP, biases=True), biases=True, tied=True, init_std=0.02
    ),
}
"""model.block -> its parts."""


class MixerLayer(nn.Module):
    """A layer without attention, with the interface of one; it has no position ids."""

    def __init__(self, mixer: Mixer, sizes: Sizes) -> None:
        super().__init__()
        self.name = type(mixer).__name__
        if type(mixer).make is Mixer.make:
            raise ValueError(f"{self.name} lacks make(sizes), which returns the module of a layer")
        self.module = mixer.make(sizes)
        try:
            inspect.signature(self.module.forward).bind(None, None)
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"{self.name}.make() must return a module whose forward takes (x, state): {error}"
            ) from None

    def forward(
        self,
        x: Float[Tensor, "b t w"],
        ids: Shaped[Tensor, "... k"] | None = None,
        select: Int[Tensor, " q"] | slice = ALL,
        *,
        cache: NoCache = NO_CACHE,
    ) -> Float[Tensor, "b q w"]:
        """Like `MultiHeadAttention`. Raises ValueError if the module returns another shape."""
        outputs = self.module(x, cache.state)
        if not isinstance(outputs, tuple) or len(outputs) != 2:
            raise ValueError(f"{self.name}: its module must return (y, state)")
        returned(self, "make()", outputs[0], x.shape)
        cache.proceed(outputs[1], x.shape[1])
        return outputs[0][:, select]


class Block(nn.Module):
    """x + post(attention(pre(x))), then the same around the MLP.

    attention: the attention layer, or a mixer that replaces it.
    """

    def __init__(self, model: Model, attention: nn.Module) -> None:
        super().__init__()
        style, width = STYLES[model.block], model.d_model
        self.attention_norm = style.norm(width)
        self.attention = attention
        self.attention_post_norm = style.post_norm(width)
        self.mlp_norm = style.norm(width)
        self.mlp = style.mlp(width, model.d_ff)
        self.mlp_post_norm = style.post_norm(width)
        self.dropout = nn.Dropout(model.dropout)

    def forward(
        self, x: Tensor, ids: Tensor | None, select: Tensor | slice = ALL, **keywords: Any
    ) -> Tensor:
        """x [b t w] -> [b q w] at x[:, select]; keywords: those of its kind of attention."""
        return self.feed_forward(self.attend(x, ids, select, **keywords))

    def attend(
        self, x: Tensor, ids: Tensor | None, select: Tensor | slice, **keywords: Any
    ) -> Tensor:
        """The first half of the block, around self-attention."""
        heads = self.attention(self.attention_norm(x), ids, select, **keywords)
        return x[:, select] + self.dropout(self.attention_post_norm(heads))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block, around the MLP."""
        return x + self.dropout(self.mlp_post_norm(self.mlp(self.mlp_norm(x))))


class CrossBlock(Block):
    """A decoder block with cross-attention to a source between self-attention and MLP."""

    def __init__(
        self, model: Model, attention: Attention, position: PositionEncoding, sizes: Sizes
    ) -> None:
        style = STYLES[model.block]
        super().__init__(model, causal_attention(attention, position, sizes, style.biases))
        self.cross_norm = style.norm(model.d_model)
        cross = cross_encoding(model, position)
        self.cross = CrossAttention(attention, cross, sizes, style.biases)
        self.cross_post_norm = style.post_norm(model.d_model)

    def forward(
        self,
        x: Tensor,
        ids: Tensor | None,
        select: Tensor | slice = ALL,
        *,
        memory: Memory,
        cache: LayerCache | NoCache = NO_CACHE,
    ) -> Tensor:
        """Like `Block`, with attention to the memory."""
        tokens, count = x.shape[1], cache.length + x.shape[1]
        own = torch.arange(count, device=x.device) if ids is None else ids
        x = self.attend(x, ids, select, cache=cache)
        own = own[..., -tokens:][..., select]
        heads = self.cross(self.cross_norm(x), own, memory=memory, cache=cache)
        return self.feed_forward(x + self.dropout(self.cross_post_norm(heads)))


def sizes_of(model: Model, layer: int = 0) -> Sizes:
    """Return the sizes of one attention layer of a model."""
    return Sizes(model.heads, model.key_heads, model.width_of_head, model.d_model, layer)


class Transformer(nn.Module):
    """Embedding, blocks, and then a final norm and a head, as the style of the blocks defines them.

    Weights are drawn in the order in which modules are created, so a seed gives the same model only
    as long as that order is kept. pad: the token that fills up rows, if there is one. Nothing
    depends on a maximum length.
    """

    attention_kind: ClassVar[Callable[..., MultiHeadAttention]] = staticmethod(causal_attention)

    def __init__(
        self,
        model: Model,
        attention: Attention,
        position: PositionEncoding,
        vocabulary: int,
        pad: int | None = None,
        mixer: Mixer | None = None,
        loop: Loop | None = None,
    ) -> None:
        super().__init__()
        self.position, self.pad = position, pad
        self.mixer, self.loop = mixer or AttentionMixer(), loop or FixedLoop()
        self.style = STYLES[model.block]
        self.embedding_scale = math.sqrt(model.d_model) if self.style.scaled_embedding else 1.0
        self.embedding = nn.Embedding(vocabulary, model.d_model)
        self.dropout = nn.Dropout(model.dropout)
        self.make_blocks(model, attention)
        self.share_tensors()
        self.norm = self.style.norm(model.d_model)
        self.head = nn.Linear(model.d_model, vocabulary, bias=False)
        self.init_matrices(model)

    def init_matrices(self, model: Model) -> None:
        """Draw matrices and embeddings; set biases to 0."""
        std = model.init_std or self.style.init_std
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=std or module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if self.style.init_std and name.endswith(".output"):
                    module.weight.data /= math.sqrt(2 * model.layers)
            elif isinstance(module, nn.Embedding):  # 1 where the blocks begin
                nn.init.normal_(module.weight, std=std or 1 / self.embedding_scale)
        if self.style.tied:
            self.head.weight = self.embedding.weight

    def make_blocks(self, model: Model, attention: Attention) -> None:
        """Create the blocks, with the encoding's own tensors."""
        self.position_state = self.position_tensors(model)
        if isinstance(self.mixer, AttentionMixer):
            layers = self.attentions(model, attention, model.layers, self.attention_kind)
        else:
            layers = (MixerLayer(self.mixer, sizes_of(model, i)) for i in range(model.layers))
        self.blocks = nn.ModuleList(Block(model, layer) for layer in layers)

    def attentions(
        self,
        model: Model,
        attention: Attention,
        count: int,
        kind: Callable[..., MultiHeadAttention],
    ) -> Iterator[MultiHeadAttention]:
        """Create the attention of each of `count` layers."""
        for i in range(count):
            parts = attention.of_layer(i), self.position.of_layer(i), sizes_of(model, i)
            yield kind(*parts, self.style.biases)

    def share_tensors(self) -> None:
        """Give layers of one kind and one encoding the tensors that it shares between them."""
        first: dict[Any, nn.Parameter] = {}
        for layer in self.attention_layers().values():
            state, encoding = layer.position_state, layer.position
            for name in (name for name in encoding.shared if name in state):
                key = layer.kind, repr(encoding), name
                state[name] = first.setdefault(key, state[name])

    def position_tensors(self, model: Model) -> nn.ParameterDict:
        """Create the tensors that the encoding learns for the embedding."""
        tensors = self.position.learned_embedding(sizes_of(model))
        return learned_tensors(self.position, tensors, "learned_embedding")

    def attention_layers(self) -> dict[str, MultiHeadAttention]:
        """Return the attention layers by their names, in the order in which they are called."""
        return {
            f"layer_{i}": block.attention
            for i, block in enumerate(self.blocks)
            if isinstance(block.attention, MultiHeadAttention)
        }

    def position_ids(self, length: int) -> Shaped[Tensor, " t"] | None:
        """Return position ids of a sequence of that length; None for the order of tokens."""
        if not self.position.has("positions"):
            return None
        ids = self.position.positions(length, device=self.embedding.weight.device)
        return position_ids(self.position, ids, length)

    def embed(
        self,
        tokens: Int[Tensor, "b t"],
        ids: Shaped[Tensor, "... k"] | None,
        learned: Mapping[str, Tensor] | Any,
        start: int = 0,
    ) -> Float[Tensor, "b t w"]:
        """Embed the tokens, which follow `start` others, for the first block.

        ids: of all these tokens; None: their order. learned: the encoding's own tensors.
        """
        x, count = self.embedding(tokens) * self.embedding_scale, tokens.shape[1]
        if self.position.has("embed"):
            if ids is None:
                ids = torch.arange(start + count, device=tokens.device)
            embedded = self.position.embed(x, ids[..., -count:], learned)
            x = returned(self.position, "embed", embedded, x.shape)
        return self.dropout(x)

    def unpadded(self, sample: Sequence[Tensor]) -> list[Tensor]:
        """Cut the inputs of one sample, without the batch dimension, to their unpadded tokens."""
        if self.pad is None:
            return list(sample)
        length = int((sample[0] != self.pad).sum())
        return [tensor[..., :length] for tensor in sample]

    def loops(self, tokens: Int[Tensor, "b t"]) -> list[int]:
        """Return the number of loops of each sequence, by its number of unpadded tokens."""
        if isinstance(self.loop, FixedLoop):
            return [self.loop.loops]
        lengths = (tokens != self.pad).sum(dim=1).tolist()
        return [loops_of(self.loop, length) for length in lengths]

    def run(
        self,
        x: Float[Tensor, "b t w"],
        ids: Shaped[Tensor, "... k"] | None,
        keywords: list[dict[str, Any]],
        select: Int[Tensor, " q"] | slice,
        loops: list[int],
    ) -> Float[Tensor, "b q w"]:
        """Run x through the blocks, the number of `loops` for each sequence.

        keywords: those of each block, or of each block in each loop. ids: only the embedding uses
        the levels after the first.
        """
        ids = ids[:, 0] if ids is not None and ids.dim() == 3 else ids
        if max(loops) == 1:
            return run_blocks(self.blocks, x, ids, keywords, select)
        count, embedded = len(self.blocks), x
        left = torch.tensor(loops, device=x.device)[:, None, None]
        for i in range(max(loops)):
            own = keywords[i * count : (i + 1) * count] or keywords
            start = x + embedded if self.loop.inject and i else x
            x = torch.where(left > i, run_blocks(self.blocks, start, ids, own), x)
        return x[:, select]

    def logits(self, x: Float[Tensor, "b t w"]) -> Float[Tensor, "b t v"]:
        """Return the logits in float32, from the output of the last block."""
        return self.head(self.norm(x)).float()


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,
    ids: Tensor | None,
    keywords: list[dict[str, Any]],
    select: Tensor | slice = ALL,
) -> Tensor:
    """Run x through the blocks, each with its keywords; only x[:, select] has queries in the last
    one.
    """
    selects = [ALL] * (len(blocks) - 1) + [select]
    for block, queries, own_keywords in zip(blocks, selects, keywords, strict=True):
        x = block(x, ids, queries, **own_keywords)
    return x


class Decoder(Transformer):
    """Blocks with causal attention between embedding and head.

    Padding comes last, so a causal model needs no mask; `pad` is known for diagnostics.
    """

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        ids: Shaped[Tensor, "... t"] | None = None,
        select: Int[Tensor, " q"] | slice = ALL,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Return next-token logits in float32, of all tokens or at tokens[:, select].

        Only the selected positions have queries in the last layer and logits. With a cache, tokens
        continue the cached sequence. ids: the position ids of the tokens from a task or a draw,
        [t], [b t], or [b levels t]; only the embedding uses the levels after the first. With a
        cache, they are given when it is created.
        """
        ids, caches, read = self.ids_and_caches(tokens, ids, cache)
        x = self.embed(tokens, ids, self.position_state, read)
        keywords = [{"cache": layer_cache} for layer_cache in caches]
        loops = self.loops(tokens) if cache is None else [len(caches) // len(self.blocks)]
        return self.logits(self.run(x, ids, keywords, select, loops))

    def ids_and_caches(
        self, tokens: Tensor, ids: Tensor | None, cache: KVCache | None
    ) -> tuple[Tensor | None, list[LayerCache | NoCache], int]:
        """Return the position ids of cached and new tokens, the cache of each block, and the
        number of cached tokens."""
        if cache is None:
            own = self.position_ids(tokens.shape[1]) if ids is None else ids
            return own, [NO_CACHE] * len(self.blocks), 0
        return cache.next_ids(tokens.shape[1]), cache.layers, cache.length

    def make_cache(self, length: int, ids: Shaped[Tensor, "... t"] | None = None) -> KVCache:
        """Return an empty cache for sequences of up to `length` tokens, with these position ids.

        `length` also determines the number of loops.
        """
        layers = len(self.blocks) * loops_of(self.loop, length)
        return KVCache(layers, length, self.position_ids(length) if ids is None else ids)

    @torch.no_grad()
    def greedy(
        self,
        tokens: Int[Tensor, "b t"],
        count: int,
        ids: Shaped[Tensor, "... n"] | None = None,
    ) -> Int[Tensor, "b {count}"]:
        """Continue tokens by `count` greedy tokens, one at a time; -1 if logits are not finite.

        ids: the position ids of all tokens that are read; the last new token is not read.
        """
        cache = self.make_cache(tokens.shape[1] + count - 1, ids)
        return decode_greedily(partial(self, cache=cache), tokens, count)


class Encoder(Transformer):
    """Like `Decoder`, with full attention and without a cache: for tagging and masked tokens.

    Padding, the tokens that are `pad`, is never attended to. The output at a padded position is
    meaningless.
    """

    attention_kind = FullAttention

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        ids: Shaped[Tensor, "... t"] | None = None,
        select: Int[Tensor, " q"] | slice = ALL,
    ) -> Float[Tensor, "b q v"]:
        """Return logits in float32, of all tokens or at tokens[:, select].

        Only these positions have queries in the last layer. ids: as in `Decoder`.
        """
        ids = self.position_ids(tokens.shape[1]) if ids is None else ids
        keywords = [{"mask": real_tokens(tokens, self.pad)}] * len(self.blocks)
        x = self.embed(tokens, ids, self.position_state)
        return self.logits(self.run(x, ids, keywords, select, self.loops(tokens)))


def loops_of(loop: Loop, length: int) -> int:
    """Return the number of loops for this many tokens. Raises ValueError for an invalid number."""
    count = loop.count(length)
    if not isinstance(count, int) or not 1 <= count <= 1024:
        raise ValueError(
            f"{type(loop).__name__}.count({length}) returned {count!r:.40}, expected a whole "
            "number from 1 to 1024"
        )
    return count


def real_tokens(tokens: Int[Tensor, "b t"], pad: int) -> Bool[Tensor, "b t"] | None:
    """Return True on unpadded tokens; None if it is known at no cost that there is no padding."""
    real = tokens != pad
    if tokens.device.type == "cpu" and bool(real.all()):  # elsewhere asking stalls the device
        return None
    return real


class EncoderDecoder(Decoder):
    """An encoder over the source, and a decoder with cross-attention to it over the target.

    The encoder has full attention and a final RMSNorm (1706.03762, with the norms of `Block`). Both
    share the embedding; each has its own tensors of a learned encoding. Padding of the source, the
    tokens that are `pad`, is never attended to; that of the target comes last.
    """

    def make_blocks(self, model: Model, attention: Attention) -> None:
        self.source_position_state = self.position_tensors(model)
        self.position_state = self.position_tensors(model)
        source_layers = self.attentions(model, attention, model.source_layers, FullAttention)
        self.source_blocks = nn.ModuleList(Block(model, layer) for layer in source_layers)
        self.source_norm = self.style.norm(model.d_model)
        parts = (
            (attention.of_layer(i), self.position.of_layer(i), sizes_of(model, i))
            for i in range(model.layers)
        )
        self.blocks = nn.ModuleList(CrossBlock(model, *of_layer) for of_layer in parts)

    def attention_layers(self) -> dict[str, MultiHeadAttention]:
        layers = {f"encoder_{i}": block.attention for i, block in enumerate(self.source_blocks)}
        for i, block in enumerate(self.blocks):
            layers |= {f"decoder_{i}": block.attention, f"cross_{i}": block.cross}
        return layers

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        source: Int[Tensor, "b s"],
        select: Int[Tensor, " q"] | slice = ALL,
    ) -> Float[Tensor, "b q v"]:
        """Return next-token logits of the target in float32, of all tokens or at tokens[:,
        select]."""
        return self.decode(tokens, self.encode(source), select)

    def unpadded(self, sample: Sequence[Shaped[Tensor, " _"]]) -> list[Tensor]:
        return [tokens[: int((tokens != self.pad).sum())] for tokens in sample]

    def encode(self, source: Int[Tensor, "b s"]) -> Memory:
        """Encode the source for the decoder's cross-attention."""
        ids, mask = self.position_ids(source.shape[1]), real_tokens(source, self.pad)
        x = self.embed(source, ids, self.source_position_state)
        x = run_blocks(self.source_blocks, x, ids, [{"mask": mask}] * len(self.source_blocks))
        if ids is None:
            ids = torch.arange(source.shape[1], device=source.device)
        return Memory(self.source_norm(x), ids, mask)

    def decode(
        self,
        tokens: Int[Tensor, "b t"],
        memory: Memory,
        select: Int[Tensor, " q"] | slice = ALL,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Like `forward`, from an encoded source.

        Only the selected positions have queries in the last layer and logits. With a cache, tokens
        continue the cached sequence, and keys and values of the memory are computed once.
        """
        ids, caches, read = self.ids_and_caches(tokens, None, cache)
        x = self.embed(tokens, ids, self.position_state, read)
        keywords = [{"memory": memory, "cache": layer_cache} for layer_cache in caches]
        return self.logits(run_blocks(self.blocks, x, ids, keywords, select))

    @torch.no_grad()
    def greedy(
        self, tokens: Int[Tensor, "b t"], source: Int[Tensor, "b s"], count: int
    ) -> Int[Tensor, "b {count}"]:
        """Continue the target's tokens by `count` greedy tokens; -1 if logits are not finite.

        Tokens are read one at a time. The source is encoded once.
        """
        memory, cache = self.encode(source), self.make_cache(tokens.shape[1] + count - 1)
        return decode_greedily(partial(self.decode, memory=memory, cache=cache), tokens, count)


def decode_greedily(
    read: Callable[..., Tensor], tokens: Int[Tensor, "b t"], count: int
) -> Int[Tensor, "b {count}"]:
    """Continue tokens by the `count` best ones; -1 if logits are not finite.

    read(tokens, select=…) returns the logits [b q v] after tokens that continue all those read
    before.
    """
    last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
    decoded = [best_tokens(read(tokens, select=last))]  # [b 1] each
    for _ in range(count - 1):
        decoded.append(best_tokens(read(decoded[-1].clamp_min(0))))
    return torch.cat(decoded, dim=1)


def best_tokens(logits: Float[Tensor, "b q v"]) -> Int[Tensor, "b q"]:
    """Return the best token at each position; -1 if logits are not finite."""
    return logits.argmax(dim=-1).masked_fill_(~logits.isfinite().all(dim=-1), -1)


KINDS = {"decoder": Decoder, "encoder": Encoder, "encoder_decoder": EncoderDecoder}
"""model.kind -> its class."""


def check_steady(position: PositionEncoding) -> None:
    """Raise ValueError, in one line, for an encoding whose `positions` differ from call to call."""
    if not position.has("positions"):
        return
    first, again = (position.positions(16) for _ in range(2))
    if not torch.equal(first, again):
        raise ValueError(
            f"{type(position).__name__}.positions() draws, so that no evaluation could be "
            "repeated: draw in draw_positions(rng, lengths, training)"
        )


def build_model(config: Config) -> Transformer:
    """Build the model of a config, its weights drawn from the run's seed."""
    task = config.task
    with torch.random.fork_rng(devices=[]):
        check_steady(config.position)
        torch.manual_seed(config.seed)
        cls, parts = KINDS[config.model.kind], (config.model, config.attention, config.position)
        model = cls(*parts, task.vocabulary, task.pad, config.mixer, config.loop)
        check_causal(model, config)
        return model


CAUSAL = 1e-3  # what predictions may change by, relative to the largest of them


@torch.no_grad()
def check_causal(model: Transformer, config: Config) -> None:
    """Raise ValueError, in one line, if users' own classes let a decoder see tokens to come.

    A copy of it with random weights reads nine tokens, and then another one in the last place.
    """
    others = (part for key, part in parts_of(config).items() if key != "task")
    own = [type(part).__name__ for part in others if user_module_of(type(part))]
    if not own or type(model) is not Decoder or model.embedding.weight.is_meta:
        return
    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)  # what starts at 0 hides what it does
    tokens = torch.randint(config.task.symbol_count, (1, 9))
    changed = tokens.clone()
    changed[0, -1] = config.task.bos
    try:
        first, again, other = (model(each)[:, :-1] for each in (tokens, tokens, changed))
    except Exception:  # it comes again at work, where it is told with its place
        return
    usable = first.isfinite().all() and torch.equal(first, again)
    if usable and (other - first).abs().max() > CAUSAL * first.abs().max():
        raise ValueError(
            "not causal: another token in the last place changes what is predicted before it; "
            f"{' or '.join(own)} lets a token see later ones (try lcg check)"
        )


def batch_tensors(batch: Batch, device: Any = None) -> dict[str, Tensor]:
    """Return a drawn batch as tensors by name: inputs, labels, and source if there is one."""
    arrays = {
        "inputs": batch.inputs,
        "labels": batch.labels,
        "source": batch.source,
        "ids": batch.ids,
    }
    return {
        name: torch.from_numpy(array).to(device)
        for name, array in arrays.items()
        if array is not None
    }


def model_inputs(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Return the positional arguments of a model of any kind, from `batch_tensors`.

    They are (inputs,), (inputs, source) if an encoder reads the source, or (inputs, ids) if there
    are position ids.
    """
    return tuple(batch[name] for name in ("inputs", "source", "ids") if name in batch)
