"""The HTML page in a real browser: nothing is fetched, tables sort and filter, figures follow the colour scheme."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from record_book import CT_0860, REPVIT, TINYVIT, Book, candidate, protocol

from reports.html import mark_code
from reports.render import render_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Containers run as root, where Chromium's sandbox does not start; the page is our own file.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="found no Chromium on the PATH (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    book = Book(folder / "records.jsonl")
    for who, seconds in ((REPVIT, 0.9), (TINYVIT, 1.2), (candidate("edge<sam>"), 0.0421)):
        book.cost(who)
        book.parts(who, [seconds])
    book.cost(candidate("untimed"))
    render_report([book.path], folder, formats=["html"])
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, page_path: Path) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 900, "height": 700})
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    opened.goto(page_path.as_uri())
    yield opened
    opened.close()
    assert not problems


def _column(page: Page, heading: str) -> list[str]:
    index = page.locator("[data-table=encoders] th").all_text_contents().index(heading)
    return page.locator(f"[data-table=encoders] tbody tr:visible td:nth-child({index + 1})").all_text_contents()


@needs_browser
def test_columns_sort_as_numbers_and_as_text(page: Page) -> None:
    heading = "encoder (ms), median [IQR]"
    button = page.get_by_role("button", name=heading)
    button.click()
    assert [cell.split()[0] for cell in _column(page, heading)] == ["42.1", "900", "1200", "-"], "as text: 1200 first"
    assert _column(page, "encoder") == ["edge<sam>", "repvit", "tinyvit", "untimed"]
    assert button.locator("..").get_attribute("aria-sort") == "ascending"
    button.click()
    assert [cell.split()[0] for cell in _column(page, heading)] == ["1200", "900", "42.1", "-"], "no value stays below"
    page.locator("[data-table=encoders]").get_by_role("button", name="encoder", exact=True).click()
    assert _column(page, "encoder") == ["edge<sam>", "repvit", "tinyvit", "untimed"]
    assert page.locator("[data-table=encoders] th[aria-sort]").count() == 1


@needs_browser
def test_shapes_sort_number_by_number(browser: Browser, tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    for shape in ([4, 512, 512], [16, 64, 64], [4, 64, 64]):
        book.one_pass(REPVIT, 1.0, protocol("cached"), case={**CT_0860, "shape": shape, "sha256": str(shape)})
    render_report([book.path], tmp_path, formats=["html"], figures=False)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    table = page.locator("[data-table=cases_3d]")
    table.get_by_role("button", name="shape").click()
    assert table.locator("tbody td:nth-child(2)").all_text_contents() == ["4x64x64", "4x512x512", "16x64x64"]


@needs_browser
def test_long_tables_filter(browser: Browser, tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    for number in range(9):
        book.parts(candidate(f"encoder{number}"), [1.0 + number])
    render_report([book.path], tmp_path, formats=["html"])
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.get_by_label("filter rows of Encoders").fill("ENCODER7")
    assert _column(page, "encoder") == ["encoder7"]


@needs_browser
def test_photographs_in_light_and_dark(browser: Browser, page_path: Path, tmp_path: Path) -> None:
    grounds, figures = [], []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(page_path.as_uri())
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        image = page.locator("figure img").first
        assert image.evaluate("image => image.complete && image.naturalWidth") >= 1000
        figures.append(image.evaluate("image => image.currentSrc"))
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    assert grounds == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]
    assert figures[0] != figures[1]
    assert (tmp_path / "light.png").stat().st_size > 10_000


@needs_browser
def test_the_page_fits_a_telephone(browser: Browser, page_path: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(page_path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "tables scroll inside their frames"


def test_the_page_needs_nothing_beside_it(page_path: Path) -> None:
    text = page_path.read_text()
    links = re.findall(r'(?:src|srcset|href)="([^"]{0,40})', text)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "<sam>" not in text, "names are escaped"


def test_cells_of_numbers_are_aligned_as_their_heading_is(page_path: Path) -> None:
    tables = re.findall(r"<thead>(.*?)</thead>\n<tbody>(.*?)</tbody>", page_path.read_text(encoding="utf-8"), re.DOTALL)
    assert tables
    for heading, body in tables:
        numeric = ['class="number"' in tag for tag in re.findall(r"<th [^>]*>", heading)]
        rows = [re.findall(r"<td[^>]*>", row) for row in body.strip().split("\n")]
        assert rows == [['<td class="number">' if number else "<td>" for number in numeric]] * len(rows)


def test_code_is_marked_and_the_rest_escaped() -> None:
    assert str(mark_code(r"\* `a<b>` & <c>")) == "* <code>a&lt;b&gt;</code> &amp; &lt;c&gt;"


def test_every_link_of_the_page_has_its_place(tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    for machine in ("m1", "m2"):
        book.cost(REPVIT, machine=machine)
        book.parts(REPVIT, [1.0], machine=machine)
    render_report([book.path], tmp_path, formats=["html"], figures=False)
    text = (tmp_path / "report.html").read_text()
    places = re.findall(r' id="([^"]+)"', text)
    assert len(places) == len(set(places)), "each machine has a table of encoders"
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(places)
