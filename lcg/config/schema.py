"""The schema of a run: one field is one option, with its type, its constraints and its help.

A new option needs nothing else: loader, checks, help and lists use its field. A run's identity
covers the fields of task, attention, position, model, data and optimizer; a field that is added to
them needs the metadata ADDED_LATER.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from lcg.attention import ADDED_LATER, Attention
from lcg.attention.mixers import AttentionMixer, FixedLoop, Loop, Mixer
from lcg.positional.base import PositionEncoding

if TYPE_CHECKING:
    from lcg.tasks.base import Task

# Numbers that no option takes, since no machine has so much of anything. Whoever meets one has
# mistyped a number; a size below may be too large for one machine, which the trainer says.
PARAMETERS = 2**40
COUNT = 10**12  # lengths, samples, steps, tokens of a batch
RATE = 10**6  # learning rates and what else multiplies a gradient or a weight
PROCESSES = 1024
THREADS = 4096
HEADS = 10**6  # of all layers; each has columns of its own
SHORTEST = 2**20  # the least length of a task
VOCABULARY = 2**31 - 1  # tokens are assembled as 32-bit numbers
SEED = 2**63


def shown(number: float) -> str:
    """Return a number for a message: short, however large it is."""
    return f"{number:,}" if abs(number) < 10**15 else f"{float(number):.3g}"


class TooLarge(ValueError):
    """A number that is too large for any machine."""


class Rule(NamedTuple):
    """A constraint on the values of an option, used as `Annotated[int, rule]`."""

    holds: Callable[[Any], bool]
    words: str
    error: type[ValueError] = ValueError

    def check(self, option: str, value: Any) -> None:
        """Raise ValueError, in one line, for a value that violates the rule."""
        if not self.holds(value):
            got = shown(value) if isinstance(value, int | float) else f"{value!r:.80}"
            raise self.error(f"{option} must {self.words}, got {got}")


def at_least(least: float) -> Rule:
    """Return the rule that a number is not smaller."""
    return Rule(lambda number: number >= least, f"be at least {least}")


def at_most(most: float) -> Rule:
    """Return the rule that a number is not larger."""
    return Rule(lambda number: number <= most, f"be at most {shown(most)}", TooLarge)


def _is_run_name(name: str) -> bool:
    path = PurePath(name)
    hidden = any(part.startswith(".") or part == "wandb" for part in path.parts)
    long = any(len(part.encode()) > 255 for part in path.parts)
    inside = bool(path.parts) and not path.is_absolute() and path.parts[0] != "sweeps"
    return inside and not hidden and not long


positive = Rule(lambda number: number > 0, "be positive")
below_one = Rule(lambda number: number < 1, "be less than 1")
not_empty = Rule(bool, "not be empty")
distinct = Rule(lambda values: len(values) == len(set(values)), "not repeat a value")
printable = Rule(str.isprintable, "have printable characters only")

Count = Annotated[int, at_least(1), at_most(COUNT)]
CountOr0 = Annotated[int, at_least(0), at_most(COUNT)]
Processes = Annotated[int, at_least(1), at_most(PROCESSES)]
ProcessesOr0 = Annotated[int, at_least(0), at_most(PROCESSES)]
Rate = Annotated[float, at_least(0), at_most(RATE)]
PositiveRate = Annotated[float, positive, at_most(RATE)]
Share = Annotated[float, at_least(0), at_most(1)]
ShareBelow1 = Annotated[Share, below_one]
Seed = Annotated[int, at_least(0), at_most(SEED - 1)]
Lengths = Annotated[list[Count], not_empty, distinct]
Folder = Annotated[str, not_empty, printable]
RunName = Annotated[
    Folder,
    Rule(
        _is_run_name,
        "be a folder below `runs` but not below sweeps, with no part that begins with a dot, is "
        "called wandb or is longer than 255 bytes",
    ),
]

# Metadata of fields that are not, or not always, part of a run's identity.
CHANGES_NO_WEIGHT = {"identity": "never"}


@dataclass
class Model:
    """The transformer."""

    kind: Literal["decoder", "encoder", "encoder_decoder"] = "decoder"
    """decoder: causal self-attention, next-token prediction; encoder: full self-attention, a label
    per position; encoder_decoder: both, and cross-attention from target to source."""
    block: Literal["prenorm", "gemma2", "gpt2"] = "prenorm"
    """prenorm: RMSNorm and GELU MLP; gemma2: four norms and GeGLU, as in the ASEntmax authors'
    code; gpt2: LayerNorm, GELU MLP, biases, and the embedding for a head."""
    layers: Count = 2
    """Number of blocks; for an encoder_decoder, of its decoder."""
    encoder_layers: Count | None = None
    """Number of blocks of an encoder_decoder's encoder; null: same as layers."""
    cross_position: Literal["none", "same"] = "none"
    """Encoding in cross-attention; same: that of self-attention, with position ids of target and
    source."""
    allow_no_position: bool = field(default=False, metadata=CHANGES_NO_WEIGHT)
    """Allow an encoder without any information on order, as with nope."""
    d_model: Count = 64
    """Width of the residual stream."""
    heads: Count = 8
    """Query heads."""
    kv_heads: Count | None = None
    """Key and value heads, each shared by heads/kv_heads query heads; null: same as heads."""
    head_dim: Count | None = None
    """Dimensions of one head; null: d_model/heads."""
    d_ff: Count = 128
    """Hidden width of the MLP."""
    dropout: ShareBelow1 = 0.0
    """Dropout probability on the embeddings and the output of every sublayer."""
    init_std: PositiveRate | None = None
    """Standard deviation of initial matrices and embeddings; null: 1/√(inputs) for matrices and 1
    for the embedding, with which small models learn several times faster than with 0.02, which is
    that of gpt2."""

    def __post_init__(self) -> None:
        d_model, heads = self.d_model, self.heads
        if self.head_dim is None and d_model % heads:
            raise ValueError(f"d_model={d_model} is not a multiple of heads={heads}; set head_dim")
        if heads % self.key_heads:
            raise ValueError(f"heads={heads} is not a multiple of kv_heads={self.kv_heads}")

    @property
    def separate_source(self) -> bool:
        """True when an encoder reads the source and a decoder the target."""
        return self.kind == "encoder_decoder"

    @property
    def source_layers(self) -> int:
        """Blocks of an encoder_decoder's encoder."""
        return self.encoder_layers or self.layers

    @property
    def key_heads(self) -> int:
        """kv_heads, or as many as heads."""
        return self.kv_heads or self.heads

    @property
    def width_of_head(self) -> int:
        """head_dim, or d_model/heads."""
        return self.head_dim or self.d_model // self.heads


@dataclass
class Data:
    """The training stream."""

    batch_size: Count = 64
    """Sequences per step, over all devices together."""
    min_length: Count = 8
    """Shortest nominal training length."""
    max_length: Count = 32
    """Longest nominal training length."""
    lengths_per: Literal["sample", "batch"] = "sample"
    """Draw a length per sample, or one per batch."""
    workers: Annotated[int, at_least(0), at_most(PROCESSES)] = field(
        default=0, metadata=CHANGES_NO_WEIGHT
    )
    """Processes that prepare batches in advance; their number does not change the batches."""

    def __post_init__(self) -> None:
        least, most = self.min_length, self.max_length
        if least > most:
            raise ValueError(f"min_length={least} is greater than max_length={most}")


@dataclass
class Optimizer:
    """AdamW with linear warm-up and decay to `final_lr`."""

    lr: PositiveRate = 1.0e-3
    """Peak learning rate."""
    warmup_steps: CountOr0 = 100
    """Steps of linear warm-up."""
    final_lr: Share = 0.0
    """Final learning rate, as a fraction of the peak."""
    decay: Literal["cosine", "linear"] = field(default="cosine", metadata=ADDED_LATER)
    """Shape of the decay."""
    beta1: ShareBelow1 = 0.9
    """Decay of the first moment."""
    beta2: ShareBelow1 = 0.99
    """Decay of the second moment."""
    weight_decay: Rate = 0.0
    """Decoupled weight decay of matrices; vectors have none."""
    clip_norm: Rate = 1.0
    """Maximum gradient norm; 0 turns clipping off."""


@dataclass
class Trainer:
    """Steps, devices, logging and checkpoints."""

    steps: Count = 2000
    """Optimiser steps."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    """Precision, as in Lightning; thresholds and row sums are always float32."""
    accelerator: Literal["auto", "cpu", "cuda", "gpu", "mps"] = "auto"
    """Kind of device to train on."""
    devices: Processes = 1
    """Devices per node; several devices in total train with DDP on the same batches."""
    nodes: Processes = 1
    """Machines that train this run together: start the same command on each, with NODE_RANK (from
    0), MASTER_ADDR and MASTER_PORT in its environment and `runs` in a shared folder."""
    threads: Annotated[int, at_least(1), at_most(THREADS)] | None = None
    """CPU threads; null: torch's default."""
    compile: Literal["auto", "none", "default", "reduce-overhead", "max-autotune"] = "auto"
    """Mode of torch.compile for the training step; batches are then padded to max_length. auto:
    reduce-overhead, which records CUDA graphs, on one CUDA device; none otherwise."""
    log_every: Count = 50
    """Steps between rows of metrics.csv, and between checks that the loss is finite."""
    checkpoint_every: Count = 200
    """Steps between checkpoints for resuming."""
    stop_when_solved: bool = field(default=False, metadata=ADDED_LATER)
    """End training once exact match is 100 % at the monitored validation length."""

    @property
    def processes(self) -> int:
        """Devices of all nodes together."""
        return self.devices * self.nodes


@dataclass
class Validation:
    """Validation during training, which selects the checkpoint; it never uses the test set."""

    every: Count = 500
    """Steps between validations; the last step is always validated."""
    lengths: Lengths = field(default_factory=lambda: [32, 64, 128])
    """Nominal lengths."""
    samples: Count = 128
    """Samples per length."""
    monitor: int | None = None
    """Length whose exact match selects the best checkpoint; null: the longest."""

    def __post_init__(self) -> None:
        if self.monitor not in (None, *self.lengths):
            raise ValueError(
                f"monitor={self.monitor} is not one of lengths={self.lengths}; "
                "set validation.monitor to one of them, or to null for the longest"
            )

    @property
    def monitored(self) -> int:
        """The length that selects the checkpoint."""
        return self.monitor or max(self.lengths)


@dataclass
class Evaluation:
    """Evaluation on the test set at several lengths."""

    lengths: Lengths = field(default_factory=lambda: [32, 64, 128, 256, 512])
    """Nominal lengths."""
    samples: Count = 1000
    """Samples per length."""
    seed: Seed = 0
    """Seed of the test set, independent of the seeds of the runs."""
    decode: Literal["teacher_forcing", "greedy"] = "teacher_forcing"
    """teacher_forcing: one forward pass; greedy: token by token, with the same exact match."""
    batch_size: Count | None = None
    """Samples per forward pass; null: estimated from the free memory."""
    after_training: bool = True
    """Evaluate at these lengths when training has finished."""
    also: list[str] = field(default_factory=list)
    """Further evaluations after training, each with other options of position and attention, in one
    string: "position=./yarn.py:YaRN position.scale=8"."""


@dataclass
class Wandb:
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online if there is a login and the server answers within 3 s, otherwise offline."""
    project: str = "lcg"
    """Project."""
    entity: str | None = None
    """User or team; null: the default of the login."""
    group: str | None = None
    """Group in the W&B interface."""
    tags: list[str] = field(default_factory=list)
    """Tags."""


@dataclass
class Config:
    """A run."""

    task: Task
    """The task to learn: a name, package.module:Class, or path/to/file.py:Class."""
    attention: Attention
    """A preset of configs/attention, or a normalizer."""
    position: PositionEncoding
    """Position encoding."""
    mixer: Mixer = field(default_factory=AttentionMixer, metadata=ADDED_LATER)
    """Token mixer of each layer: attention, or your own class that maps x to y, such as an LSTM."""
    loop: Loop = field(default_factory=FixedLoop, metadata=ADDED_LATER)
    """Number of times the blocks run with the same weights: fixed, or your own class."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    trainer: Trainer = field(default_factory=Trainer)
    validation: Validation = field(default_factory=Validation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    wandb: Wandb = field(default_factory=Wandb)
    seed: Seed = 0
    """Seed of the weights, the training data and dropout."""
    name: RunName | None = None
    """Folder of the run below `runs`; null: derived from the choices and a hash of the config."""
    runs: Folder = "runs"
    """Folder of the run directories."""
    labels: dict[str, str] = field(default_factory=dict)
    """Names of task, attention and position on the command line; filled in automatically."""


COMPONENTS = ("task", "attention", "position", "mixer", "loop")
LABELLED = ("task", "attention", "position")
"""The components whose names stand in directories and labels of every run."""
ATTENTION_PARTS = ("normalizer", "scaling", "output_norm")
PLAIN = ("seed", "name", "runs")
SECTIONS = {
    f.name: f.default_factory
    for f in fields(Config)
    if is_dataclass(f.default_factory) and f.name not in COMPONENTS
}
