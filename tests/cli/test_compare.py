"""`lcg inspect`'s head analyses: on every attention, compared with others, or one line why not."""

import pytest

ALWAYS = {"density.png", "head_diversity.png", "positional_heads.png"}
OF_ALPHA = {"alpha_histogram.png", "alpha_trajectories.png"}


@pytest.fixture
def runs(train_once):
    """A finished tiny run per attention, made when it is asked for."""
    return lambda attention, *words: train_once(f"attention={attention}", "model.layers=2", *words)


@pytest.mark.parametrize(
    "attention",
    ["entmax_learned", "rela_g"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("softmax", "stick_breaking", "topk", "adaptive_temperature")
    ],
)
def test_every_attention(call, runs, attention):
    run = runs(attention)
    code, out, err = call("inspect", str(run), "--length", "8", "--samples", "3")
    assert code == 0, err
    text = out.partition("head analyses at length 8\n")[2]
    assert text.startswith(f"A  {run.name}: {attention} · nape\n\n")
    heads = [line.split()[:2] for line in text.splitlines() if line.startswith("layer_")]
    assert heads == [
        *([f"layer_{i}", str(h)] for i in (0, 1) for h in (0, 1)),
        *([f"layer_{i}", "causal"] for i in (0, 1)),
    ]
    learned = attention == "entmax_learned"
    assert ("\nA  α of 4 causal heads: 1." in text) == ("α" in text) == learned
    pictures = {path.name for path in (run / "plots" / "inspect_len_8").iterdir()}
    assert pictures == ALWAYS | (OF_ALPHA if learned else set()) | {"layer_0.png", "layer_1.png"}
    assert all(str(run / "plots" / "inspect_len_8" / name) in err for name in pictures)


def test_compared_with_others(call, runs, tmp_path):
    run, softmax, wider = (
        runs("entmax_learned"),
        runs("softmax"),
        runs("entmax15", "model.heads=4", "model.layers=3"),
    )
    words = [
        "--length",
        "6",
        "--samples",
        "4",
        "--normalizers",
        "softmax,sparsemax",
        "-o",
        str(tmp_path),
    ]
    others = ["--compare", str(softmax), str(wider)]
    code, out, err = call("inspect", str(run), *words, *others)
    assert code == 0, err
    text = out.partition("head analyses at length 6\n")[2]
    assert text.splitlines()[:5] == [
        f"A  {run.name}: entmax_learned · nape, layers=2, heads=2",
        "B  softmax on the scores of entmax_learned · nape, layers=2, heads=2",
        "C  sparsemax on the scores of entmax_learned · nape, layers=2, heads=2",
        f"D  {softmax.name}: softmax · nape, layers=2, heads=2",
        f"E  {wider.name}: entmax15 · nape, layers=3, heads=4",
    ]
    rows = [line.split() for line in text.splitlines() if line.startswith("layer_")]
    density = {(row[0], row[1]): row[2:7] for row in rows}
    assert len(rows) == 3 * 4 + 3  # of the widest: heads, then layers
    for layer, head in (("layer_0", "0"), ("layer_1", "1")):
        a, b, c, d, _ = density[layer, head]
        assert b == d == "1.000" and float(c) <= float(a) <= 1
    assert density["layer_2", "3"][:4] == ["–"] * 4 and density["layer_2", "3"][4] != "–"
    assert {path.name for path in tmp_path.iterdir()} == ALWAYS | OF_ALPHA | {
        "layer_0.png",
        "layer_1.png",
    }


@pytest.mark.parametrize("kind", ["encoder", "encoder_decoder"])
def test_other_kinds_of_models(call, runs, kind):
    task = {"encoder": "local_count", "encoder_decoder": "copy"}[kind]
    words = (f"task={task}", f"model.kind={kind}", "model.layers=1")
    run, rela = runs("entmax_learned", *words), runs("rela", *words)
    arguments = [
        "--length",
        "8",
        "--samples",
        "4",
        "--compare",
        str(rela),
        "--normalizers",
        "entmax15",
    ]
    code, out, err = call("inspect", str(run), *arguments)
    assert code == 0, err
    kinds = {"encoder": ["full"], "encoder_decoder": ["full", "causal", "cross"]}[kind]
    for name in kinds:
        assert f"\nA  α of 2 {name} heads: 1." in out
    pictures = {path.name for path in (run / "plots" / "inspect_len_8").iterdir()}
    assert pictures >= ALWAYS | OF_ALPHA


def test_a_run_compared_with_itself_is_the_same(call, runs):
    run = str(runs("softmax"))
    words = ("--length", "6", "--samples", "4", "--compare", run, run + "/.")
    code, out, err = call("inspect", run, *words)
    assert code == 0
    assert f"{run} is the inspected run" in err and f"{run} is given twice" in err
    rows = [line.split() for line in out.splitlines() if line.startswith("layer_") and "%" in line]
    assert rows and all(row[2] == row[3] for row in rows)


MISTAKES = {
    "--compare OTHER": "was trained on another task than",
    "--compare nowhere": "nowhere does not exist",
    "--normalizers sofmax": "softmax",
    "--normalizers entmax_learned": "what it learns needs training; use --compare with a run",
    "--normalizers ssmax": "it also scales the scores (log), which needs training",
    "--normalizers entmax15,asentmax": "it also scales the scores (adaptive)",
    "--normalizers " + ",".join(["entmax15"] * 26): "at most 25 others",
    "--normalizers stick_breaking": "it sees other keys than softmax",
    "--layer 1 --normalizers entmax15": "leave out --layer and --heads",
    "--heads 1 --compare RUN": "leave out --layer and --heads",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line(call, runs, words, written):
    run, other = str(runs("softmax")), str(runs("softmax", "task=reverse"))
    before = written()
    said = words.replace("RUN", run).replace("OTHER", other).split()
    code, out, err = call("inspect", run, "--length", "4", *said)
    assert (code, out) == (2, "")
    assert MISTAKES[words] in err and err.count("\n") == 1
    assert written() == before
