"""Bad input is one clear line that says what was wrong and what is near; nothing is written."""

import pytest

from lcg.cli import main

USER_FILES = {
    "broken_syntax.py": "class Broken(:\n    pass\n",
    "broken_import.py": "import there_is_no_such_module\n",
    "raises.py": "\n\nvalue = {}['missing']\n",
    "exits.py": "import sys\nsys.exit('never mind')\n",
    "masked.py": """
from dataclasses import dataclass
from lcg.tasks.copy import Copy
@dataclass
class Masked(Copy):
    name = "masked"
    kind = "masked"
""",
    "plain.py": """
from lcg.tasks.base import Task
class Plain(Task):
    name = 'plain'
    symbols: int = 4
    def sample(self, rng, lengths): ...
class NoTask:
    pass
number = 3
""",
    "incomplete.py": """
from dataclasses import dataclass
from typing import ClassVar
from lcg.tasks.base import Task
@dataclass
class NoSample(Task):
    name: ClassVar[str] = 'no_sample'
    symbols: int = 4
@dataclass
class NoName(Task):
    symbols: int = 4
    def sample(self, rng, lengths): ...
@dataclass
class FieldName(Task):
    name: str = 'field_name'
    def sample(self, rng, lengths): ...
""",
    "post_init.py": """
from dataclasses import dataclass
from typing import ClassVar
from lcg.tasks.base import Task
@dataclass
class Strict(Task):
    name: ClassVar[str] = 'strict'
    symbols: int = 4
    def __post_init__(self):
        self.require(self.symbols % 2 == 0, f'symbols must be even, got {self.symbols}')
    def sample(self, rng, lengths): ...
@dataclass
class Broken(Strict):
    name: ClassVar[str] = 'broken'
    def __post_init__(self):
        self.table = {}
        self.table['key']
@dataclass
class NoSymbols(Task):
    name: ClassVar[str] = 'no_symbols'
    def sample(self, rng, lengths): ...
@dataclass
class Needs(Task):
    name: ClassVar[str] = 'needs'
    symbols: int
    def sample(self, rng, lengths): ...
@dataclass
class LongOnly(Strict):
    name: ClassVar[str] = 'long_only'
    min_length = 20
""",
    "position.py": """
from dataclasses import dataclass
from typing import ClassVar
from lcg.positional.base import PositionEncoding
@dataclass
class Fragile(PositionEncoding):
    name: ClassVar[str] = 'fragile'
    def check(self, sizes):
        return 1 / 0
""",
    "configs/experiment/typo.yaml": "task: copy\nmodle: {layers: 3}\n",
    "configs/experiment/deep.yaml": "model: {layer: 3}\n",
    "configs/experiment/number.yaml": "attention: 3\n",
    "configs/experiment/empty_task.yaml": "task:\n",
    "configs/experiment/list.yaml": "- task: copy\n",
    "configs/experiment/yaml_error.yaml": "task: copy\nmodel: {layers: 3\nseed: 1\n",
    "configs/experiment/twice.yaml": "seed: 1\nseed: 2\n",
    "configs/experiment/circle.yaml": "base: circle2\n",
    "configs/experiment/circle2.yaml": "base: circle\n",
    "configs/experiment/baseless.yaml": "base: nowhere\n",
    "configs/experiment/quoted.yaml": "optimizer: {lr: fast}\n",
    "configs/experiment/text_list.yaml": "evaluation: {lengths: {a: 1}}\n",
    "configs/attention/mine.yaml": "normalizer: {name: ./nothing.py:Mine}\n",
}

USER_FILES["configs/experiment/itself.yaml"] = "task: &a {name: copy, inner: *a}\n"
USER_FILES["configs/experiment/nested.yaml"] = f"task: {'[' * 2000}"
USER_FILES["configs/experiment/bomb.yaml"] = "\n".join(
    [
        "l0: &l0 lol",
        *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 13)),
        "task: *l12",
    ]
)
USER_FILES["configs/experiment/large.yaml"] = f"# {'a' * 10**6}\ntask: copy\n"
USER_FILES["list.json"] = "[1]"

# words -> what the one line must say
BAD = {
    # names
    "task=cop": "task=cop is not known; did you mean copy?",
    "task=xyzzy": "choose from ",
    "attention=asentmx": "attention=asentmx is not known; did you mean asentmax?",
    "position=ropes": "position=ropes is not known; did you mean rope?",
    "experiment=typpo": "experiment=typpo is not known; did you mean typo?",
    "attention.scaling=adaptve": "scaling=adaptve is not known; did you mean adaptive?",
    "attention.normalizer=sofmax": "did you mean softmax?",
    "attention.backend=refrence": "refrence is not known; use one of auto, reference",
    "model=small": "model=small is not known; there are no files in configs/model",
    # keys
    "modle.d_model=128": "modle.d_model is not an option; did you mean model.d_model?",
    "model.d_modle=128": "model.d_modle is not an option; did you mean model.d_model?",
    "d_model=128": "did you mean model.d_model?",
    "lr=0.1": "lr is not an option; did you mean optimizer.lr?",
    "model.lr=0.1": "model.lr is not an option; did you mean optimizer.lr?",
    "lengths=64": "did you mean validation.lengths or evaluation.lengths?",
    "sed=3": "sed is not an option; did you mean seed?",
    "labels.task=mine": "labels.task is not an option",
    "task=copy task.symbls=8": "task.symbls is not an option; did you mean task.symbols?",
    "task=copy task.max_reps=8": "task.max_reps is not an option of copy, but of local_count",
    "attention=asentmax attention.scaling.ofset=0": "did you mean attention.scaling.offset?",
    "attention=softmax attention.normalizer.alpha=2": "of softmax, but of entmax",
    "attention.alpha=2": "did you mean attention.normalizer.alpha",
    "attention.scaling.offset=0": "attention.scaling.offset is not an option of none, but of",
    "position=rope position.variant=linear": "is not an option of rope, but of alibi, kerple, nape",
    # form
    "seed": "'seed' is not of the form key=value",
    "=3": "'=3' is not of the form key=value",
    "seed=": "seed= has no value",
    "task=": "task= has no value",
    "evaluation.lengths=": "evaluation.lengths= has no value",
    "seed=1 seed=2": "seed is given twice, as 1 and as 2",
    "task=copy task.name=sort": "task is given twice, as copy and as sort",
    "seed.deep=1": "seed",
    "model.layers.deep=1": "model.layers: {'deep': '1'} is not a whole number",
    # types
    "seed=1.5": "seed: '1.5' is not a whole number",
    "seed=three": "seed: 'three' is not a whole number",
    "seed=true": "seed: 'true' is not a whole number",
    "trainer.steps=1e-3": "trainer.steps: '1e-3' is not a whole number",
    "trainer.steps=None": "trainer.steps: null is not allowed",
    "optimizer.lr=fast": "optimizer.lr: 'fast' is not a number",
    "optimizer.lr=false": "optimizer.lr: 'false' is not a number",
    "optimizer.lr=nan": "optimizer.lr: 'nan' is not a number",
    "optimizer.lr=inf": "optimizer.lr must be at most 1,000,000, got inf",
    "optimizer.lr=None": "optimizer.lr: null is not allowed",
    "evaluation.after_training=3": "evaluation.after_training: '3' is not true or false",
    "evaluation.lengths=64,x": "evaluation.lengths: 'x' is not a whole number",
    "evaluation.lengths=64,,128": "evaluation.lengths: '' is not a whole number",
    "evaluation.lengths={a: 1}": "evaluation.lengths",
    "attention=3": "attention=3 is not known",
    "attention.scaling=3": "scaling=3 is not known",
    "trainer.precision=16": "trainer.precision=16 is not known; choose from 16-mixed",
    "attention=asentmax attention.scaling.bias=maybe": "'maybe' is not true or false",
    "experiment=number": "attention: expected a name, got 3",
    "experiment=empty_task": "task: expected a name, got None",
    "experiment=quoted": "optimizer.lr: 'fast' is not a number",
    "experiment=text_list": "evaluation.lengths: expected a list",
    # files
    "experiment=typo": "experiment=typo: modle is not an option; did you mean model?",
    "experiment=deep": "model.layer is not an option; did you mean model.layers?",
    "experiment=list": "list.yaml: expected a mapping of keys to values",
    "experiment=yaml_error": "yaml_error.yaml:3: ",
    "experiment=twice": "twice.yaml:2: found duplicate key seed",
    "experiment=circle": "experiment=circle: base leads back to circle",
    "experiment=baseless": "experiment=nowhere is not known",
    "attention=mine": "there is no file ./nothing.py",
    "experiment=itself": "nested more than 50 deep, or an anchor refers to itself",
    "experiment=nested": "nested.yaml: it is nested more than 50 deep",
    "experiment=bomb": "bomb.yaml: it expands to more than 10,000 values",
    "experiment=large": "large.yaml: the file has more than 1,000,000 bytes",
    # what an agent of W&B hands over
    "list.json": "list.json: expected keys and values",
    "nothing.json": "nothing.json cannot be read: ",
    "{seed: 1}": "{seed: 1} is not JSON: ",
    '{"sed": 1}': "sed is not an option; did you mean seed?",
    "--model.allow_no_postion": "did you mean model.allow_no_position?",
    # values
    "seed=-1": "seed must be at least 0, got -1",
    "evaluation.lengths=[]": "evaluation.lengths must not be empty",
    "evaluation.lengths=64,64,32": "lengths must not repeat a value, got [64, 64, 32]",
    "evaluation.lengths=0": "evaluation.lengths must be at least 1, got 0",
    "validation.samples=0": "samples must be at least 1, got 0",
    "validation.monitor=99": "monitor=99 is not one of lengths",
    "model.d_model=100": "d_model=100 is not a multiple of heads=8; set head_dim",
    "model.kv_heads=3": "heads=8 is not a multiple of kv_heads=3",
    "model.kv_heads=0": "kv_heads must be at least 1, got 0",
    "model.head_dim=0": "head_dim must be at least 1, got 0",
    "data.min_length=40": "min_length=40 is greater than max_length=32",
    "optimizer.beta1=1": "optimizer.beta1 must be less than 1, got 1",
    "task=copy task.symbols=1": "copy: symbols must be at least 2, got 1",
    "attention=entmax15 attention.normalizer.alpha=0.5": "must be 1 or in [1.01, 32], got 0.5",
    "attention=topk attention.normalizer.k=0": "k must be at least 1",
    "position=rope position.fraction=2": "rope: fraction must be in (0, 1], got 2.0",
    "name=../elsewhere": "name must be a folder below `runs` ",
    "name=/tmp/elsewhere": "name must be a folder below `runs` ",
    "name=//tmp/elsewhere": "name must be a folder below `runs` ",
    # combinations
    "position=nape model.heads=1 model.d_model=8": "nape: needs at least 2 heads",
    "position=rope model.d_model=56": "must be an even number of dimensions",
    "position=nape model.heads=6 model.kv_heads=3 model.d_model=48": "model.kv_heads=3",
    "task=copy model.kind=encoder": (
        "copy is a seq2seq task and model.kind=encoder trains on tagging and masked tasks only; "
        "use model.kind=decoder or encoder_decoder"
    ),
    "task=n_back model.kind=encoder_decoder": "use model.kind=decoder or encoder",
    "task=./masked.py:Masked": "use model.kind=encoder",
    "attention=stick_breaking model.kind=encoder_decoder": (
        "attention.normalizer=stick_breaking runs in causal attention only and "
        "model.kind=encoder_decoder has other"
    ),
    "task=n_back model.kind=encoder position=nope": (
        "position=nope gives model.kind=encoder no information about order"
    ),
    "model.kind=encoder_decoder model.encoder_layers=0": "encoder_layers must be at least 1, got 0",
    "task=n_back task.n=9": "data.min_length: n_back: length 8 is too short",
    "data.batch_size=3 trainer.devices=2": "cannot be divided among trainer.devices=2",
    "trainer.precision=16-mixed trainer.accelerator=cpu": "use bf16-mixed or 32-true",
    "attention=asentmax attention.scaling.offset=0": "offset must be greater than 0, got 0",
    # a user's own classes
    "task=./plain.py": "did you mean ./plain.py:Plain or ./plain.py:NoTask?",
    "task=./missing.py": "but there is no such file",
    "task=./missing.py:Rotate": "there is no file ./missing.py",
    "task=my_pkg.rotate": "names no class; write my_pkg.rotate.py:Class for a file",
    "task=my_pkg.rotate:Rotate": "there is no module my_pkg; a file works too",
    "task=tasks.rotate:Rotate": "there is no module tasks",
    "task=:Rotate": "expected package.module:Class or path/to/file.py:Class",
    "task=./plain.py:": "expected package.module:Class or path/to/file.py:Class",
    "task=./plain.py:Plan": "./plain.py has no class Plan; did you mean Plain?",
    "task=./plain.py:Plain": "Plain is not a dataclass: put @dataclass above class Plain",
    "task=./plain.py:NoTask": "must be a subclass of lcg.tasks.base.Task",
    "task=./plain.py:number": "must be a subclass of lcg.tasks.base.Task",
    "position=./plain.py:NoTask": "must be a subclass of lcg.positional.base.PositionEncoding",
    "task=./broken_syntax.py:Broken": "broken_syntax.py:1: SyntaxError",
    "task=./broken_import.py:Any": "broken_import.py:1: ModuleNotFoundError: No module named",
    "task=./raises.py:Any": "raises.py:3: KeyError: 'missing'",
    "task=./exits.py:Any": "exits.py:2: SystemExit: never mind",
    "task=./incomplete.py:NoSample": "./incomplete.py:NoSample lacks sample()",
    "task=./incomplete.py:NoName": 'has no `name`; write `name: ClassVar[str] = "noname"`',
    "task=./incomplete.py:FieldName": "`name` must not be a field",
    "task=./post_init.py:Strict task.symbols=3": "strict: symbols must be even, got 3",
    "task=./post_init.py:Strict task.symbls=3": "did you mean task.symbols?",
    "task=./post_init.py:Strict task.symbols=many": "task.symbols: 'many' is not a whole number",
    "task=./post_init.py:Broken": "post_init.py:17: KeyError: 'key'",
    "task=./post_init.py:NoSymbols": "NoSymbols has no symbol_count: define it,",
    "task=./post_init.py:Needs": "task.symbols must be given, it has no default",
    "task=./post_init.py:LongOnly": "data.min_length: long_only: length 8 is too short",
    "position=./position.py:Fragile": "position.py:9: ZeroDivisionError",
}


def files_below(folder):
    # Python keeps the bytecode of a module that it imports, as it does for every one.
    return {p for p in folder.rglob("*") if "__pycache__" not in p.parts}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_writes_nothing(words, write, here, capsys):
    for path, text in USER_FILES.items():
        write(path, text)
    before = files_below(here)
    # Values may hold spaces: only those inside braces here.
    arguments = [words] if "{" in words else words.split()
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.removesuffix("\n")
    assert "\n" not in line
    assert line.startswith("lcg: ")
    assert BAD[words] in line
    assert files_below(here) == before


@pytest.mark.parametrize("words", ["--dry-run task=cop", "--help task=cop", "task=cop --dry-run"])
def test_mistakes_come_before_help_and_dry_runs(words, here, capsys):
    assert main(["train", *words.split()]) == 2
    assert "did you mean copy?" in capsys.readouterr().err
