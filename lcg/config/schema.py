"""The schema of a run: one field is one option, the text under it is its help."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import PurePath
from typing import Any, Literal

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
    """A number for a message: short, however large it is."""
    return f"{number:,}" if abs(number) < 10**15 else f"{float(number):.3g}"


class TooLarge(ValueError):
    """A number beyond what any machine has so much of."""


def require_between(
    section: Any, names: tuple[str, ...], least: float, most: float, what: str = ""
) -> None:
    """Raise ValueError for a field that is set and not within [least, most]; what: of a message
    about one that is too small.
    """
    for name in names:
        value = getattr(section, name)
        if value is None:
            continue
        if not value >= least:
            raise ValueError(f"{name} must {what or f'be at least {least}'}, got {value:g}")
        if value > most:
            raise TooLarge(f"{name} must be at most {shown(most)}, got {shown(value)}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _stays_below(name: str) -> bool:
    path = PurePath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _check_name(name: str) -> None:
    """Raise ValueError for a name of a folder that `lcg table` would not find or not show."""
    _require(name.isprintable(), f"name={name!r} holds a character that cannot be printed")
    parts = PurePath(name).parts
    for part in parts:
        _require(
            not part.startswith("."),
            f"name={name}: a folder whose name begins with a dot is hidden",
        )
        _require(part != "wandb", f"name={name}: a folder called wandb holds what W&B writes")
        _require(len(part.encode()) <= 255, f"name={name[:40]}… is longer than 255 bytes")
    _require(parts[0] != "sweeps", f"name={name}: the folder sweeps holds the studies of sweeps")


def _check_ladder(lengths: list[int], samples: int) -> None:
    _require(bool(lengths), "lengths is empty, give at least one")
    _require(min(lengths) >= 1, f"lengths must be positive, got {min(lengths)}")
    longest = max(lengths)
    _require(longest <= COUNT, f"lengths must be at most {shown(COUNT)}, got {shown(longest)}")
    repeated = sorted(n for n, times in Counter(lengths).items() if times > 1)
    _require(not repeated, f"lengths has {', '.join(map(str, repeated))} more than once")
    _require(samples >= 1, f"samples must be at least 1, got {samples}")
    _require(samples <= COUNT, f"samples must be at most {shown(COUNT)}, got {shown(samples)}")


@dataclass
class Model:
    """The transformer."""

    kind: Literal["decoder", "encoder", "encoder_decoder"] = "decoder"
    """decoder: causal self-attention, next-token prediction; encoder: full self-attention, a label
    per position; encoder_decoder: both, and cross-attention from target to source."""
    block: Literal["prenorm", "gemma2"] = "prenorm"
    """prenorm: RMSNorm and GELU MLP; gemma2: four norms and GeGLU, as the ASEntmax authors."""
    layers: int = 2
    """Number of blocks; of an encoder_decoder those of its decoder."""
    encoder_layers: int | None = None
    """Blocks of an encoder_decoder's encoder; null: as many as layers."""
    cross_position: Literal["none", "same"] = "none"
    """Encoding in cross-attention; same: as elsewhere, by position ids of target and source."""
    allow_no_position: bool = False
    """Let an encoder run with an encoding that tells it nothing of order, such as nope."""
    d_model: int = 64
    """Width of the residual stream."""
    heads: int = 8
    """Query heads."""
    kv_heads: int | None = None
    """Key and value heads, each shared by heads/kv_heads query heads; null: as many as heads."""
    head_dim: int | None = None
    """Dimensions of one head; null: d_model/heads."""
    d_ff: int = 128
    """Hidden width of the MLP."""
    dropout: float = 0.0
    """Dropped share of the embeddings and of every sublayer's output, in training."""
    init_std: float | None = None
    """Standard deviation of matrices and embeddings at the start; null: 1/√(inputs) for a matrix
    and 1 for the embedding, with which small models learn several times faster than at 0.02."""

    def __post_init__(self) -> None:
        positive = ("layers", "d_model", "heads", "d_ff", "kv_heads", "head_dim", "encoder_layers")
        require_between(self, positive, 1, COUNT)
        _require(
            self.head_dim is not None or self.d_model % self.heads == 0,
            f"d_model={self.d_model} is not a multiple of heads={self.heads}; set head_dim",
        )
        _require(
            self.heads % self.key_heads == 0,
            f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}",
        )
        _require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}")
        _require(
            self.init_std is None or 0 < self.init_std <= RATE,
            f"init_std must be positive and at most {shown(RATE)}, got {self.init_std}",
        )

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

    batch_size: int = 64
    """Sequences per step, over all devices together."""
    min_length: int = 8
    """Shortest nominal length trained on."""
    max_length: int = 32
    """Longest nominal length trained on."""
    lengths_per: Literal["sample", "batch"] = "sample"
    """Draw a length for each sample, or one for the whole batch."""
    workers: int = 0
    """Processes that prepare batches ahead; the batches are the same whatever the number."""

    def __post_init__(self) -> None:
        require_between(self, ("batch_size", "min_length"), 1, COUNT)
        _require(
            self.min_length <= self.max_length,
            f"min_length={self.min_length} is greater than max_length={self.max_length}",
        )
        require_between(self, ("max_length",), 1, COUNT)
        require_between(self, ("workers",), 0, PROCESSES, "not be negative")


@dataclass
class Optimizer:
    """AdamW with linear warm-up and a cosine to `final_lr`."""

    lr: float = 1.0e-3
    """Peak learning rate."""
    warmup_steps: int = 100
    """Steps from 0 to the peak."""
    final_lr: float = 0.0
    """End of the cosine, as a share of the peak."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.99
    """Decay of the second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay on matrices; vectors have none."""
    clip_norm: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"lr must be positive, got {self.lr:g}")
        require_between(self, ("lr", "clip_norm", "weight_decay"), 0, RATE, "not be negative")
        require_between(self, ("warmup_steps",), 0, COUNT, "not be negative")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name} must be in [0, 1), got {value:g}")
        _require(0 <= self.final_lr <= 1, f"final_lr must be in [0, 1], got {self.final_lr:g}")


@dataclass
class Trainer:
    """Steps, devices, logging and checkpoints."""

    steps: int = 2000
    """Optimiser steps."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    """As Lightning names them; thresholds and row sums are float32 in every one."""
    accelerator: Literal["auto", "cpu", "cuda", "gpu", "mps"] = "auto"
    """Kind of device to train on."""
    devices: int = 1
    """Number of devices on each node; more than one in all trains with DDP on the same batches."""
    nodes: int = 1
    """Machines that train this run together: the same command on each, with NODE_RANK (0 is the
    first), MASTER_ADDR and MASTER_PORT in its environment and `runs` in a folder that all share."""
    threads: int | None = None
    """CPU threads; null: what torch chooses."""
    compile: Literal["auto", "none", "default", "reduce-overhead", "max-autotune"] = "auto"
    """Mode of torch.compile for the training step; batches then have one width, that of max_length.
    auto: reduce-overhead, which records CUDA graphs, on one CUDA device; none elsewhere."""
    log_every: int = 50
    """Steps between rows of metrics.csv, and between checks that the loss is finite."""
    checkpoint_every: int = 200
    """Steps between checkpoints from which an interrupted run resumes."""

    def __post_init__(self) -> None:
        require_between(self, ("steps", "log_every", "checkpoint_every"), 1, COUNT)
        require_between(self, ("devices", "nodes"), 1, PROCESSES)
        require_between(self, ("threads",), 1, THREADS)

    @property
    def processes(self) -> int:
        """Devices of all nodes together."""
        return self.devices * self.nodes


@dataclass
class Validation:
    """Evaluation while training; it selects the checkpoint, never from the test set."""

    every: int = 500
    """Steps between validations; there is always one at the last step."""
    lengths: list[int] = field(default_factory=lambda: [32, 64, 128])
    """Nominal lengths."""
    samples: int = 128
    """Samples per length."""
    monitor: int | None = None
    """Length whose exact match selects the best checkpoint; null: the longest."""

    def __post_init__(self) -> None:
        require_between(self, ("every",), 1, COUNT)
        _check_ladder(self.lengths, self.samples)
        _require(
            self.monitor is None or self.monitor in self.lengths,
            f"monitor={self.monitor} is not one of lengths={self.lengths}; "
            "set validation.monitor to one of them, or to null for the longest",
        )

    @property
    def monitored(self) -> int:
        """The length that selects the checkpoint."""
        return self.monitor or max(self.lengths)


@dataclass
class Evaluation:
    """The test ladder."""

    lengths: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    """Nominal lengths."""
    samples: int = 1000
    """Samples per length."""
    seed: int = 0
    """Seed of the test set; all runs of a task share it, whatever their own seed."""
    decode: Literal["teacher_forcing", "greedy"] = "teacher_forcing"
    """teacher_forcing: one pass, the same exact match; greedy: token by token, the check."""
    batch_size: int | None = None
    """Samples per forward pass; null: as many as memory allows by an estimate made first."""
    after_training: bool = True
    """Evaluate at these lengths as soon as training is done."""

    def __post_init__(self) -> None:
        _check_ladder(self.lengths, self.samples)
        require_between(self, ("batch_size",), 1, COUNT)
        require_between(self, ("seed",), 0, SEED - 1, "not be negative")


@dataclass
class Wandb:
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online when there is a login and the server answers within 3 s, else offline."""
    project: str = "lcg"
    """Project."""
    entity: str | None = None
    """User or team; null: the login's own."""
    group: str | None = None
    """Group shown together in the interface."""
    tags: list[str] = field(default_factory=list)
    """Tags."""


@dataclass
class Config:
    """A run."""

    task: Any = "copy"
    """The task to learn: a name, package.module:Class, or path/to/file.py:Class."""
    attention: Any = "softmax"
    """A preset of configs/attention, or a normalizer."""
    position: Any = "nape"
    """Position encoding."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    trainer: Trainer = field(default_factory=Trainer)
    validation: Validation = field(default_factory=Validation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    wandb: Wandb = field(default_factory=Wandb)
    seed: int = 0
    """Seed of the weights, the training data and the dropout."""
    name: str | None = None
    """Folder of the run below `runs`; null: made from the choices and a hash of the config."""
    runs: str = "runs"
    """Folder that holds the run directories."""
    labels: dict[str, str] = field(default_factory=dict)
    """Names of task, attention and position on the command line; filled in automatically."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, f"seed must be in [0, 2^63), got {self.seed}")
        inside = self.name is None or _stays_below(self.name)
        _require(inside, f"name={self.name} must be a folder below runs={self.runs}")
        if self.name is not None:
            _check_name(self.name)
        _require(bool(self.runs), "runs is empty; name a folder")
        _require(
            self.runs.isprintable(), f"runs={self.runs!r} holds a character that cannot be printed"
        )


COMPONENTS = ("task", "attention", "position")
ATTENTION_PARTS = ("normalizer", "scaling", "output_norm")
PLAIN = ("seed", "name", "runs")
SECTIONS = {f.name: f.default_factory for f in fields(Config) if is_dataclass(f.default_factory)}
