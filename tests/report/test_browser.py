"""The page in a real browser, at a phone's width and at a desk's."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lcg.report import MapChoice, find, make

pytestmark = pytest.mark.slow

WIDTHS = (375, 1280)


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A headless Chromium. Fails, and says how to get one, where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if find_spec("playwright") is None or program is None:
        pytest.fail("these tests need: pip install 'lcg[browser]', and apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(folder: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of figure, on disk."""
    from datetime import UTC, datetime

    sources = find([folder, trained])
    made = datetime(2026, 1, 2, tzinfo=UTC)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(make(sources, "lcg report …", made, MapChoice()).html, encoding="utf-8")
    return path


@pytest.fixture(params=WIDTHS)
def opened(request, chromium, page_file: Path) -> Iterator:
    """The page opened from disk at each width; what it asked for and complained of is noted."""
    context = chromium.new_context(viewport={"width": request.param, "height": 800})
    page = context.new_page()
    page.complaints, page.requests = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("requestfailed", lambda request: page.complaints.append(request.url[:200]))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(page_file.as_uri(), wait_until="networkidle")
    yield page
    context.close()


def test_nothing_is_asked_of_the_network_and_nothing_fails(opened, page_file: Path) -> None:
    assert opened.complaints == []
    outside = [url for url in opened.requests if not url.startswith("data:")]
    assert outside == [page_file.as_uri()]


def test_the_page_never_scrolls_sideways(opened) -> None:
    for details in opened.locator("details").all():
        details.evaluate("node => node.open = true")
    wide = opened.evaluate("document.documentElement.scrollWidth")
    assert wide <= opened.viewport_size["width"]


def test_figures_are_seen_whole_and_their_words_are_legible(opened) -> None:
    figures = opened.locator("figure").all()
    assert len(figures) >= 2 + 2 + 2 + 1 + 1, "results, rates, losses, heads, maps"
    for figure in figures:
        picture = figure.locator(".picture svg")
        box = picture.bounding_box()
        assert picture.is_visible()
        assert box["width"] > 250 and box["height"] > 150
        assert box["x"] >= 0 and box["x"] + box["width"] <= opened.viewport_size["width"]
        # Of the font and not of a word's box, which for a rotated word is its length.
        sizes = picture.locator("text").evaluate_all(
            """nodes => nodes.map(n => {
                const place = n.getScreenCTM();
                return parseFloat(getComputedStyle(n).fontSize) * Math.hypot(place.a, place.b);
            })"""
        )
        assert 1.2 * min(sizes) > 7, "no word below about 6.5 pixels"  # a box is 1.2 fonts high


def test_no_figure_leaves_its_own_frame(opened) -> None:
    """The reader's font may be wider than the one a figure was laid out with."""
    outside = opened.evaluate(
        """() => [...document.querySelectorAll('.picture svg')].flatMap(svg => {
            const frame = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const box = text.getBoundingClientRect();
                return box.right > frame.right + 2 || box.left < frame.left - 2;
            }).map(text => text.textContent);
        })"""
    )
    assert outside == []


def test_downloads_are_valid_svg(opened) -> None:
    links = opened.locator("a[download]").all()
    assert len(links) == opened.locator("figure").count()
    with opened.expect_download() as waiting:
        links[0].click()
    saved = Path(waiting.value.path())
    assert waiting.value.suggested_filename == links[0].get_attribute("download")
    for link in links:
        content = base64.b64decode(link.get_attribute("href").partition("base64,")[2])
        assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
        if link is links[0]:
            assert saved.read_bytes() == content


def test_it_reads_in_the_dark(opened) -> None:
    """Text and background keep a contrast of 4.5, and pictures are dark as well."""
    opened.emulate_media(color_scheme="dark")
    contrast = opened.evaluate(
        """() => {
            const light = text => {
                const part = text.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255).map(
                    c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
            };
            const body = light(getComputedStyle(document.body).backgroundColor);
            return ['body', 'p.about', 'a', 'td.state', 'figcaption'].map(name => {
                const ink = light(getComputedStyle(document.querySelector(name)).color);
                const [high, low] = [Math.max(ink, body), Math.min(ink, body)];
                return (high + 0.05) / (low + 0.05);
            });
        }"""
    )
    assert min(contrast) > 4.5
    paper = opened.locator(".picture").first.evaluate("n => getComputedStyle(n).backgroundColor")
    assert max(map(int, re.findall(r"\d+", paper))) < 60


def test_it_prints_with_no_figure_cut(opened, tmp_path: Path) -> None:
    """A PDF of several pages comes out; figures may not be broken, and no link is left to press."""
    content = opened.pdf(path=tmp_path / "report.pdf", format="A4")
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Type /Page\n") > 2
    opened.emulate_media(media="print")
    # A4 within the page's margins, in pixels of 1/96 inch.
    opened.set_viewport_size({"width": 688, "height": 1017})
    breaks = opened.locator("figure").evaluate_all(
        "nodes => nodes.map(n => getComputedStyle(n).breakInside)"
    )
    assert set(breaks) == {"avoid"}
    assert not opened.locator("a.download").first.is_visible()
    heights = opened.locator("figure").evaluate_all("nodes => nodes.map(n => n.offsetHeight)")
    assert max(heights) < 1017, "a figure that cannot be cut must fit"
