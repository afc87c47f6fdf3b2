"""The page: well formed, self-contained, deterministic, and its numbers are those of lcg table."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lcg.report import Report, find, make
from lcg.report.figures import shades, thinned
from lcg.results import table
from lcg.results.published import blocks
from lcg.runs.metrics import read_curves
from lcg.runs.record import RunRecord
from lcg.runs.run import Run

VOID_HTML = {"meta", "link", "br"}
REQUESTS = ("src", "href", "xlink:href", "srcset", "action", "poster", "data")


class Page(HTMLParser):
    """Ids, links, figures and table rows of a page; asserts that tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.downloads: list[str] = []
        self.captions: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        if "id" in given:
            self.ids.append(given["id"])
        self.references += [(tag, key, given[key]) for key in REQUESTS if key in given]
        if tag == "a" and "download" in given:
            self.downloads.append(given["href"])
        if tag == "figcaption":
            self.captions.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID_HTML:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID_HTML:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "figcaption" in self._open:
            self.captions[-1] += data
        if self._open and {"td", "th"} & set(self._open) and "text" not in self._open:
            self.rows[-1][-1] += data


def documents(page: Page) -> list[ElementTree.Element]:
    """The documents that the download links hold."""
    texts = [link.removeprefix("data:image/svg+xml;base64,") for link in page.downloads]
    return [ElementTree.fromstring(base64.b64decode(text, validate=True)) for text in texts]


def words(svg: str) -> list[str]:
    """The words in a figure."""
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()).strip() for text in texts]


def drawing(report: Report, ending: str):
    """The first figure whose name ends so."""
    return next(d for d in report.drawings if d.name.endswith(ending))


def test_ids_are_unique_and_every_reference_stays_inside(report: Report) -> None:
    page = Page(report.html)
    assert len(page.ids) == len(set(page.ids)) > 50
    for tag, key, target in page.references:
        inside = target.startswith("#") and target[1:] in page.ids
        assert inside or target.startswith("data:"), (tag, key, target[:80])
    for target in re.findall(r"url\(([^)]*)\)", report.html):
        assert target.startswith("#") and target[1:] in page.ids
    assert not {"script", "iframe", "object", "embed", "img"} & set(page.tags)
    assert "@import" not in report.html and "@font-face" not in report.html


def test_every_figure_has_a_caption_and_its_own_svg(report: Report) -> None:
    page = Page(report.html)
    figures = page.tags.count("figure")
    assert figures == len(report.drawings) == len(page.captions) == len(page.downloads)
    assert figures == 2 + 1 + 2 + 1, "accuracy and loss of two tasks, rates of one, heads of one"
    assert all(len(caption) > 80 for caption in page.captions)
    for root, drawn in zip(documents(page), report.drawings, strict=True):
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("viewBox")
        assert ElementTree.tostring(root) == ElementTree.tostring(ElementTree.fromstring(drawn.svg))


def test_numbers_are_those_of_the_table(report: Report, folder: Path) -> None:
    """Every count, interval, mean and median in the page's tables, against `lcg table`'s JSON."""
    document = json.loads(table([run.record for run in Run.find([folder])], "json"))
    rows = Page(report.html).rows
    for group in document["groups"]:
        best = next(run for run in group["runs"] if run["run"] == group["best"])
        mine = [row for row in rows if row[0].strip() == group["name"]]
        top = " ".join(next(row for row in mine if f"of {group['trained']['n']}" in " ".join(row)))
        assert f"{group['trained']['k']} of {group['trained']['n']}" in top
        for cell in best["ladder"]:
            if cell["state"] == "value":
                low, high = best["wilson"][str(cell["length"])]
                exact = 100 * cell["correct"] / cell["samples"]
                mark = " †" if best["trained"] is False else ""
                assert f"{exact:.1f}{mark} [{100 * low:.1f}, {100 * high:.1f}]" in top
            else:
                assert cell["state"].replace("_", " ") in top
        for run in group["runs"]:
            mean = run["mean_out_of_distribution"]["value"]
            if mean is not None:
                own = [row for row in mine if row[1] == str(run["settings"]["seed"])]
                assert any(f"{100 * mean:.1f}" in row[-2] for row in own if len(row) > 4)
    softmax = next(g for g in document["groups"] if g["name"] == "softmax · nape")
    at = softmax["over_seeds"]["64"]
    text = f"{100 * at['median']:.1f} [{100 * at['low']:.1f}, {100 * at['high']:.1f}]"
    assert text == "82.5 [75.0, 90.0]", "the oracle: seeds with 150 and 180 of 200"
    medians = next(row for row in rows if row[1:2] == ["median [range]"])
    assert text in medians


def test_methods_are_compared_on_the_same_samples(report: Report) -> None:
    """asentmax against softmax at 128: 160 and 90 of 200, the 90 being among the 160."""
    rows = Page(report.html).rows
    row = next(r for r in rows if len(r) > 1 and r[1].strip() == "softmax · nape")
    heads = next(r for r in rows if r[:2] == ["method", "baseline"])
    cell = row[heads.index("128 (4×)")]
    assert cell.startswith("+35.0 [+")
    assert "p < 0.0001" in cell
    assert row[heads.index("32 (train)")].startswith("+0.0 [-")


def test_published_rows_stand_under_ours(tmp_path: Path, run_of, write, made) -> None:
    block = blocks()["table1/sort"]
    settings = {"seed": 0, "lr": 0.001, "train_lengths": list(block.train_lengths)}
    end = max(block.train_lengths)
    fitting = run_of({end: 200, 2 * end: 150}, task=block.task, settings=settings)
    write(tmp_path, fitting, heads=False, rows=3)
    report = make(find([tmp_path]), "lcg report", made, None)
    rows = Page(report.html).rows
    for row in block.rows:
        own = next(r for r in rows if r[0] == f"published: {row.name}")
        assert all(f"{100 * value:.1f}" in " ".join(own) for value in row.values.values())
    assert block.source in report.html


def test_metrics_have_a_table_of_their_own(tmp_path: Path, run_of, write, made) -> None:
    run = run_of({32: 10, 64: 4}, task="parallel_text")
    values = [{"bleu": 31.26, "chrf": 50.0}, {"bleu": 7.0, "chrf": 20.44}]
    cells = [replace(cell, metrics=found) for cell, found in zip(run.ladder, values, strict=True)]
    write(tmp_path, replace(run, ladder=tuple(cells)))
    html = make(find([tmp_path]), "lcg report", made, None).html
    rows = [row for row in Page(html).rows if row[-2:] in (["31.3", "7.0"], ["50.0", "20.4"])]
    assert len(rows) == 2
    assert "chrF (0 to 100) of the same runs" in html


def test_states_are_words_and_marks_never_zeros(report: Report) -> None:
    svg = drawing(report, "copy-accuracy").svg
    assert {"a seed did not train", "out of memory", "skipped"} <= set(words(svg))
    assert "not finite" in words(drawing(report, "sort-accuracy").svg)
    assert "out of memory" in report.html and "needs 31 GiB" in report.html


def test_the_edge_of_a_grid_is_flagged(report: Report) -> None:
    rates = drawing(report, "copy-learning-rate")
    assert "asentmax · nape (0.004: try 0.008)" in rates.caption
    assert "softmax · nape (" not in rates.caption, "0.001 lies inside its grid"
    assert "▸" in words(rates.svg)
    assert "is at the edge of the grid (try 0.008)" in report.html
    assert {"0.0005", "0.001", "0.002", "0.004"} <= set(words(rates.svg))
    assert "validation at 64 (%)" in words(rates.svg), "the length that the monitor names"


def test_the_plateau_is_marked_where_it_is_known(report: Report) -> None:
    assert "left the plateau" in words(drawing(report, "copy-loss").svg)
    assert "left the plateau" not in words(drawing(report, "sort-loss").svg)


def test_heads_over_training(report: Report) -> None:
    heads = drawing(report, "-heads")
    shown = set(words(heads.svg))
    assert {"learned α", "query scaler", "support (keys)", "largest weight"} <= shown
    assert {"layer 0", "layer 1", "no position, scaled", "ALiBi slope"} <= shown
    assert "Scaled: the length scaling multiplies" in heads.caption
    assert "softmax · nape: its metrics.csv has no columns for heads" in report.html


def test_the_same_input_gives_the_same_page(folder: Path, report: Report, later) -> None:
    sources = find([folder])
    again = make(sources, "lcg report …", later, None).html
    one, other = ([*page.split("\n")] for page in (report.html, again))
    different = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    assert len(different) == 1, "only the line that says when the page was made"
    assert "2026-01-02 03:04 UTC" in different[0][0]
    assert different[0][0].replace("2026-01-02 03:04", "2027-05-06 07:08") == different[0][1]


def test_a_label_is_text_wherever_it_stands(tmp_path: Path, run_of, write, made) -> None:
    label = '<script>alert("&")</script>$x^2$'
    write(tmp_path, run_of({32: 200, 64: 100}, attention=label))
    write(tmp_path, run_of({32: 200, 64: "skipped"}, task='"><img src=http://x.org/y>'))
    report = make(find([tmp_path]), 'lcg "<b>"', made, None)
    page = Page(report.html)
    assert "script" not in page.tags and "img" not in page.tags and "b" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert any(label in row[0] for row in page.rows)
    assert any(label in text for d in report.drawings for text in words(d.svg))


def test_one_run_without_anything_beside_its_record(tmp_path: Path, run_of, made) -> None:
    run_of({32: 200}).save(tmp_path / "alone")
    report = make(find([tmp_path]), "lcg report", made, None)
    Page(report.html)
    assert [d.name.split("-")[-1] for d in report.drawings] == ["accuracy"]
    assert "no run has a metrics.csv" in report.html
    assert "at one learning rate only" in report.html


def test_a_run_that_was_never_evaluated(tmp_path: Path, run_of, made) -> None:
    whole = run_of({})
    bare = replace(whole, validation={}, selection=None)
    bare.save(tmp_path / "bare")
    Page(make(find([tmp_path]), "lcg report", made, None).html)


def test_many_methods(tmp_path: Path, run_of, write, made) -> None:
    for index in range(20):
        ladder = {2**n: 10 * index for n in range(5, 15)}
        write(tmp_path, run_of(ladder, attention=f"a{index:02}"), heads=False, rows=3)
    report = make(find([tmp_path]), "lcg report", made, None)
    page = Page(report.html)
    assert len(page.ids) == len(set(page.ids))
    legend = words(drawing(report, "accuracy").svg)
    assert all(any(f"a{i:02} · nape" in text for text in legend) for i in range(20))


def test_a_long_title_keeps_its_end(tmp_path: Path, run_of, write, made) -> None:
    """The end of a label tells two methods apart; a title goes to a next line."""
    long = "normalizer_of_a_file_with_a_long_name_that_fills_the_line, shift="
    for shift in (0, 2):
        write(tmp_path, run_of({32: 200}, attention=f"{long}{shift}"))
    report = make(find([tmp_path]), "lcg report", made, None)
    heads = [d for d in report.drawings if d.name.endswith("-heads")]
    assert len(heads) == 2
    for shift, figure in zip((0, 2), heads, strict=True):
        said = "".join(words(figure.svg)).replace(" ", "")
        assert f"{long}{shift} · nape: heads over training".replace(" ", "") in said


def test_steps_are_whole_numbers(tmp_path: Path, run_of, write, made) -> None:
    directory = write(tmp_path, run_of({32: 200}), heads=False, rows=0)
    (directory / "metrics.csv").write_text("step,train/loss\n20,1.0\n")
    svg = drawing(make(find([tmp_path]), "lcg report", made, None), "-loss").svg
    axis = svg[svg.index('id="matplotlib.axis_1"') : svg.index('id="matplotlib.axis_2"')]
    ticks = re.findall(r">([-\d.]+)</text>", axis)
    assert "20" in ticks and all(tick.isdecimal() for tick in ticks)


def test_no_figure_has_tex_markup(tmp_path: Path, run_of, write, made) -> None:
    """Log axes of less than a decade have labels between the powers of ten."""
    write(tmp_path, run_of({32: 200}), heads=False, rows=3)
    report = make(find([tmp_path]), "lcg report", made, None)
    assert "mathdefault" not in report.html


def test_damaged_metrics_lose_only_their_rows(tmp_path: Path, run_of, write) -> None:
    directory = write(tmp_path, run_of({32: 200}), heads=False, rows=3)
    with (directory / "metrics.csv").open("a") as file:
        file.write("400,nan\n500,0.25\nx,1\n600\n700,0.5,9\n500,0.125\n800,inf\n900,0.0")
    steps, values = read_curves(directory / "metrics.csv")["train/loss"]
    assert steps == [100, 200, 300, 500], "900 was cut inside its number"
    assert values[-1] == 0.125, "the later row of a step counts"
    assert read_curves(tmp_path / "metrics.csv") == {}


def test_thinning_keeps_the_mean() -> None:
    steps, values = list(range(1000)), [float(i % 10) for i in range(1000)]
    few, means = thinned(steps, values, most=100)
    assert len(few) == len(means) == 100
    assert set(means) == {4.5}
    assert thinned(steps[:5], values[:5], most=100) == (steps[:5], values[:5])


def test_provenance_shows_known_facts(report: Report, folder: Path) -> None:
    assert "0123456789ab, changed files" in report.html
    assert "lcg 0.1.0, torch 2.13.0+cpu" in report.html
    assert "2023-11-14 22:13" in report.html, "when metrics.csv was last written"
    records: list[RunRecord] = [run.record for run in Run.find([folder])]
    assert all(record.run in report.html and record.hash in report.html for record in records)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shades_end_in_the_colour_itself(count: int) -> None:
    colours = shades("#0072b2", count)
    assert len(set(colours)) == count
    assert colours[-1] == "#0072b2"


def test_another_metric_and_baseline(folder: Path, tmp_path: Path, run_of, write, made) -> None:
    run = run_of({32: 10, 64: 0})
    cells = [replace(cell, token_accuracy=0.125 * (i + 1)) for i, cell in enumerate(run.ladder)]
    write(tmp_path, replace(run, ladder=tuple(cells)), heads=False)
    report = make(find([tmp_path]), "lcg report", made, None, metric="token_accuracy")
    rows = Page(report.html).rows
    assert any(row[3:5] == ["12.5 †", "25.0 †"] for row in rows)
    assert "token accuracy (%)" in words(drawing(report, "accuracy").svg)
    with pytest.raises(ValueError, match=r"the runs have exact_match, token_accuracy$"):
        make(find([tmp_path]), "lcg report", made, None, metric="bleu")
    compared = make(find([folder]), "lcg report", made, None, baseline="asentmax")
    rows = Page(compared.html).rows
    first = rows[[row[:2] for row in rows].index(["method", "baseline"]) + 1]
    assert first[1].strip() == "asentmax · nape"
    assert "The baseline is asentmax.\n" in compared.html, "beside the table, as in markdown"


def test_a_single_logged_point_is_drawn(tmp_path: Path, run_of, write, made) -> None:
    """A run of a few steps logs its loss once: a marker, since a line of one point is nothing."""
    write(tmp_path, run_of({32: 10}), heads=False, rows=1)
    svg = drawing(make(find([tmp_path]), "lcg report", made, None), "-loss").svg
    assert 'style="fill: #0072b2' in svg, "lines are not filled, markers are"


def test_figures_take_the_ink_and_the_paper_of_the_page(report: Report) -> None:
    inline, download = report.drawings[0].inline, report.drawings[0].svg
    assert "currentColor" in inline and "var(--picture, #ffffff)" in inline
    assert "#000000" not in inline.replace("url(#", "")
    assert "currentColor" not in download, "a picture on its own is black on white"
