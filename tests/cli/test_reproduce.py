"""`lcg reproduce`: from a block's name to a verdict on every published number."""

import pytest

from lcg.cli import main
from lcg.results.published import blocks

SMALL = """
    seed=0 optimizer.lr=0.0004 trainer.steps=4 trainer.checkpoint_every=4 trainer.precision=32-true
    trainer.accelerator=cpu model.d_model=16 model.heads=2 model.head_dim=8 model.d_ff=16
    data.batch_size=4 optimizer.warmup_steps=2 validation.every=4 validation.samples=4
    validation.lengths=64,256 evaluation.samples=8 evaluation.lengths=64,128 wandb.mode=disabled
""".split()  # noqa: SIM905


def test_a_block_that_is_not_published_is_refused_at_once(here, capsys):
    assert main(["reproduce", "table1/srt"]) == 2
    assert "did you mean table1/sort" in capsys.readouterr().err
    assert not list(here.iterdir())


CRASP = [name for name in blocks() if name.startswith("crasp/")]


@pytest.mark.parametrize("block", CRASP)
def test_every_row_of_crasp_is_in_its_sweep(block):
    """The runs have task, encoding, lengths and model that were published, and fit the block."""
    from lcg.config import load_config
    from lcg.config.compatibility import parameter_count
    from lcg.sweeping import read_sweep
    from lcg.sweeping.file import combinations

    published, sweep = blocks()[block], read_sweep("crasp", [f"experiment={block}"])
    configs = [load_config(sweep.words(chosen)) for chosen in combinations(sweep)]
    assert {c.seed for c in configs} == {*range(7)}
    config = configs[0]
    assert (config.labels["task"], config.labels["position"]) == (
        published.task,
        published.position,
    )
    assert {getattr(config.task, name) for name in published.options} == {
        *published.options.values()
    }
    assert (config.data.min_length, config.data.max_length) == published.train_lengths
    assert config.trainer.steps == published.steps and config.data.batch_size == 64
    count = parameter_count(config.model, config.task.vocabulary)
    assert published.parameters == (count, count)
    bins = [[n for n in config.evaluation.lengths if low < n <= low + 50] for low in (50, 100)]
    assert [sum(lengths) / len(lengths) for lengths in bins] == [75.5, 125.5]


@pytest.mark.parametrize("block", sorted(blocks().keys() - set(CRASP)))
def test_every_block_has_its_sweep(block):
    """The sweep has the methods, task, training lengths and encoding that were published."""
    from lcg.config import load_config
    from lcg.sweeping import read_sweep
    from lcg.sweeping.file import combinations

    published = blocks()[block]
    sweep = read_sweep(block.replace("/", "_"))
    configs = [load_config(sweep.words(chosen)) for chosen in combinations(sweep)]
    assert {row.method for row in published.rows} == {c.labels["attention"] for c in configs}
    assert {c.labels["position"] for c in configs} == {published.position}
    assert {(c.data.min_length, c.data.max_length) for c in configs} == {published.train_lengths}
    assert {c.trainer.steps for c in configs} == {published.steps}
    assert {c.seed for c in configs} == {0, 1, 2}
    lengths = [round(m * published.train_lengths[1]) for m in published.multiples]
    assert all(c.evaluation.lengths == lengths for c in configs)


@pytest.mark.slow
def test_from_the_sweep_to_the_verdicts(here, capsys):
    """Two of the five attentions are run for four steps: no number agrees beyond an honest 0."""
    words = ["reproduce", "table1/sort", *SMALL]
    assert main([*words, "attention=softmax"]) == 0
    capsys.readouterr()
    assert main([*words, "attention=asentmax", "--workers", "2"]) == 0
    told = capsys.readouterr()
    assert "table1_sort.yaml: method grid, 1 runs" in told.err
    rows = [line for line in told.out.splitlines() if line.startswith("| ASEntmax ")]
    assert [row.split("|")[2].strip() for row in rows] == ["64", "128", "256", "512"]
    assert ["differs" in row or "not run" in row for row in rows] == [True] * 4
    assert "4 training steps, the authors 312500; batches of 4, the authors 128" in rows[0]
    assert "parameters, the authors 2,118,400 to 2,122,512" in rows[0]
    assert "not evaluated" in rows[2]
    others = [line for line in told.out.splitlines() if line.startswith("| SSMax ")]
    assert len(others) == 4
    assert all("no run of ssmax in this setting" in row for row in others)
    total = sum(len(row.values) for row in blocks()["table1/sort"].rows)
    assert f"of {total} published numbers:" in told.out
