"""`lcg sparsefinder`: four files, the same each time, or one line and nothing."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from lcg.cli import main
from lcg.evaluation import memory
from lcg.evaluation.evaluate import load_model
from lcg.sparsefinder import plots
from lcg.sparsefinder import study as module
from lcg.sparsefinder.grid import Grid, full_grid
from lcg.sparsefinder.study import CellResult, LengthResult, Plan, Study, run_study
from lcg.sparsefinder.writing import UNREACHED, summary
from lcg.tasks.copy import Copy

FILES = {"results.json", "table.md", "sparsity_recall.png", "sparsity_accuracy.png"}
FEW = ("--samples", "4", "--steps", "5", "--windows", "0,3", "--length", "6,12")


@pytest.fixture
def run(train_once):
    return train_once("attention=entmax15", "model.kind=decoder")


@pytest.fixture
def translator(train_once):
    return train_once("attention=relu", "model.kind=encoder_decoder")


@pytest.fixture
def tagger(train_once):
    words = ("task=local_count", "attention=entmax_learned", "model.kind=encoder")
    return train_once(*words, "data.min_length=4", "data.max_length=8", "validation.lengths=4,8")


def call(capsys, *words):
    capsys.readouterr()
    code = main(["sparsefinder", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def numbers(cell):
    names = ("sparsity", "recall", "exact", "mass", "exact_match", "token_accuracy")
    return [cell[name] for name in names]


def test_files_and_numbers(run, capsys, tmp_path):
    code, out, err = call(capsys, run, *FEW)
    assert code == 0, err
    assert "the model itself" in out and "fully predicted queries: the same support" in out
    folder = run / "plots" / "sparsefinder_len_6_12"
    assert {path.name for path in folder.iterdir()} == FILES
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10000
    found = json.loads((folder / "results.json").read_text())
    assert [result["length"] for result in found["lengths"]] == [6, 12]
    assert found["plan"]["learned_at"] == 6
    layers = set(found["losses"])
    for result in found["lengths"]:
        own = [result["exact_match"], result["token_accuracy"]]
        cells = result["cells"]
        for cell in cells:
            assert cell["skipped"] is None
            assert all(0 <= number <= 1 for number in numbers(cell))
            assert set(cell["per_head"]) == layers
            assert cell["identity"]["largest_difference"] <= 1e-6
            if cell["recall"] == 1:  # nothing is lost, so nothing changes
                assert numbers(cell)[-2:] == own and cell["exact"] == 1
        for family in ("distance", "equal-size buckets", "equal intervals", "clusters"):
            end = [cell for cell in cells if cell["method"] == family and cell["recall"] == 1]
            assert min(cell["sparsity"] for cell in end) == 0
        exact = [cell for cell in cells if cell["method"] == "exact graph"]
        assert exact[0]["recall"] == 1
    table = (folder / "table.md").read_text()
    assert "## Length 12" in table and "of 3, " not in table and ", window 3 " in table

    code, again, err = call(capsys, run, *FEW, "-o", tmp_path / "elsewhere")
    assert code == 0 and again == out
    assert (tmp_path / "elsewhere" / "results.json").read_bytes() == (
        folder / "results.json"
    ).read_bytes()


def test_an_encoder_with_learned_alpha(tagger, capsys):
    code, out, err = call(
        *(capsys, tagger, "--samples", "4", "--steps", "5", "--length", "8,16"),
        *("--cosine", "--rank", 2, "--shared"),
    )
    assert code == 0, err
    assert all(f"recall at {n} |" in out for n in (8, 16))
    assert "| cosine distance" in out


def test_an_encoder_decoder_with_rows_of_zeros(translator, capsys):
    words = ("--samples", "2", "--steps", "2", "--windows", "0", "--length", "6")
    code, _, err = call(capsys, translator, *words)
    assert code == 0, err
    found = json.loads((translator / "plots" / "sparsefinder_len_6" / "results.json").read_text())
    assert set(found["losses"]) == {"encoder_0", "decoder_0", "cross_0"}
    for cell in found["lengths"][0]["cells"]:
        if cell["recall"] == 1:
            assert cell["token_accuracy"] == found["lengths"][0]["token_accuracy"]


def test_default_lengths_are_those_that_the_split_has(run, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Copy, "distinct_samples", lambda self, split, length: 0 if length > 30 else None
    )
    few = ("--samples", "2", "--steps", "1", "--windows", "0", "-o", tmp_path / "out")
    code, out, err = call(capsys, run, *few)
    assert code == 0 and "recall at 24 |" in out and "at 96" not in out
    assert "left out, because the test split has no samples that long: 96\n" in err
    code, out, err = call(capsys, run, *few, "--length", "6,96")
    assert (code, out) == (2, "") and "no samples of length 96" in err and err.count("\n") == 1


def test_every_predictor_also_comes_with_a_window_and_globals():
    for grid in (Grid(), full_grid(0)):
        methods = [method for method in grid.methods() if method.learned]
        fronts = {method.front for method in methods}
        for family in {method.family for method in methods}:
            joined = {front.removeprefix(family) for front in fronts if front.startswith(family)}
            assert {"", " + window", " + window + globals"} <= joined


def of_every_method(token_accuracy=0.9):
    """A study without measuring: of each method that is not dense, one sparse setting."""
    cells = [
        CellResult(method.front, method.family, "", 0, 0, method.learned, 0.3, 0.5)
        for method in full_grid(0).methods()
    ]
    result = LengthResult(8, 8, 1, 0.5, token_accuracy, cells)
    return Study(Plan((8,), 8), 1, {}, [result])


def test_no_two_fronts_look_the_same():
    styles = plots._styles(of_every_method())
    methods = {name.partition(" + ")[0]: style for name, style in styles.items()}
    for part in ("color", "marker"):
        assert len({style[part] for style in methods.values()}) == len(methods)
    looks = {(s["color"], s["marker"], s["linestyle"]) for s in styles.values()}
    assert len(looks) == len(styles) > len(methods)
    for name, style in styles.items():
        assert style["color"] == methods[name.partition(" + ")[0]]["color"]


def test_the_summary_explains_the_dash():
    assert UNREACHED in summary(of_every_method())


def test_the_summary_has_a_column_for_each_number():
    study = of_every_method()
    header, _, own, *rows = summary(study).splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "method",
        "recall at 8",
        "token accuracy at 8",
    ]
    assert own.split() == ["|", "the", "model", "itself", "|", "|", "90.0", "|"]
    assert "Test set: 1 sample of length 8." in summary(study)
    assert not any("·" in row for row in rows)


def test_nothing_is_cut_off_a_picture_of_one_length(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "write_png", lambda figure, path, dpi: drawn.append(figure))
    for value in plots.VALUES:
        plots.draw(of_every_method(), value, "entmax_learned · nape", tmp_path / "x.png")
    for figure in drawn:
        figure.draw_without_rendering()
        texts = [figure._suptitle, figure.axes[0]._left_title, *figure.legends[0].get_texts()]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text.get_text()
            assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, text.get_text()


def test_refusals_are_one_line(run, capsys, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    (tmp_path / "file").write_text("")
    for words, reason in (
        (("--rank", "99"), "heads have 8 dimensions"),
        (("--samples", "0"), "at least 1"),
        (("--length", "4,x"), "whole numbers"),
        (("--length", "0"), "at least 1"),
        (("--length", ""), "whole numbers"),
        (("--windows", "-1"), "at least 0"),
        (("-o", tmp_path / "file"), "is a file"),
        (("--device", "cuda:99"), "cannot be used"),
    ):
        code, out, err = call(capsys, run, *words)
        assert (code, out) == (2, "") and reason in err and err.count("\n") == 1, words
    code, _, err = call(capsys, tmp_path / "nowhere")
    assert code == 2 and "does not exist" in err
    dense = shutil.copytree(run, tmp_path / "dense")
    entmax = "name: entmax\n    alpha: 1.5"
    config = (dense / "config.yaml").read_text()
    assert entmax in config
    (dense / "config.yaml").write_text(config.replace(entmax, "name: softmax"))
    code, _, err = call(capsys, dense)
    assert code == 2 and "softmax gives weight to every key" in err
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_length_that_does_not_fit_is_skipped(run, capsys, tmp_path, monkeypatch):
    need = memory.forward_bytes
    monkeypatch.setattr(
        memory,
        "forward_bytes",
        lambda config, batch, tokens, scored: (
            need(config, batch, tokens, scored) + (2**60 if tokens > 20 else 0)
        ),
    )
    code, out, err = call(capsys, run, *FEW, "-o", tmp_path / "out")
    assert code == 0 and "length 12 skipped: a sequence of" in err
    assert "length 12" not in out
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["lengths"][1]["cells"] == [] and "GiB" in found["lengths"][1]["skipped"]
    assert "skipped (a sequence" in (tmp_path / "out" / "table.md").read_text()


def test_stopped_it_leaves_nothing(run, capsys, tmp_path, monkeypatch):
    def stop(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measured", stop)
    code, out, _ = call(capsys, run, *FEW, "-o", tmp_path / "out")
    assert (code, out) == (130, "")
    assert not (tmp_path / "out").exists()


def test_learning_never_sees_the_test_stream(run, monkeypatch):
    asked = []
    draw = module.draw
    monkeypatch.setattr(module, "draw", lambda *words: asked.append(words[1:3]) or draw(*words))
    from lcg.runs.run import Run

    config = Run(run).config
    model, _ = load_model(run, config)
    grid = Grid(l2=(1.0,), bucket_sizes=(None,), clusters=(1,), joined=((0, 0),), random=())
    plan = Plan(lengths=(6,), learned_at=6, samples=2, learn_samples=2, steps=2, grid=grid)
    first = run_study(model, config, plan, lambda *words: None)
    assert asked == [("validation", 6), ("test", 6)]
    more = run_study(model, config, replace(plan, lengths=(4, 6)), lambda *words: None)
    assert first.losses == more.losses
    assert torch.tensor(list(first.losses.values())).isfinite().all()
