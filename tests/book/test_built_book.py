"""The built book as a reader meets it, in headless Chromium with the network off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

from companion.paths import Project
from companion.reports import chapter_reports

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}

pytestmark = pytest.mark.browser

if CHROMIUM is None:
    if os.environ.get("CI"):
        pytest.fail("chromium is missing on CI: the browser tests must run", pytrace=False)
    pytest.skip("chromium is missing: apt-get install chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def html(root: Path) -> Path:
    """The book built from the committed reference runs, by the reader's own command."""
    result = subprocess.run(
        [sys.executable, "-m", "companion", "read"], cwd=root, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return root / "_build" / "read" / "html"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, html):
    """Open a page of the book; complaints of the browser are collected in ``page.complaints``."""
    contexts = []

    def open_page(name: str, viewport=DESKTOP, theme: str = "light", query: str = "") -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=theme, offline=True)
        contexts.append(context)
        context.add_init_script(
            f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
        )
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda m: m.type == "error" and page.complaints.append(m.text))
        page.on("pageerror", lambda e: page.complaints.append(str(e)))
        page.on("requestfailed", lambda r: page.complaints.append(f"failed: {r.url}"))
        page.on(
            "request",
            lambda r: (
                r.url.startswith("http") and page.complaints.append(f"left the book: {r.url}")
            ),
        )
        page.goto(f"file://{html / name}{query}")
        page.wait_for_load_state("load")
        page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise")
        return page

    yield open_page
    for context in contexts:
        context.close()


def pages(root: Path) -> list[str]:
    """Every page in the table of contents."""
    names = re.findall(r"^\s*(?:- file|root): (\S+)", (root / "_toc.yml").read_text(), re.M)
    return [f"{name}.html" for name in names]


ALL = pages(Path(__file__).resolve().parents[2])
CHAPTERS = [name for name in ALL if name.startswith("notebooks/")]


@pytest.mark.parametrize("name", ALL)
def test_every_page_loads_offline_without_complaint(visit, name):
    page = visit(name)
    page.wait_for_timeout(300)
    assert page.complaints == []
    assert page.locator("article.bd-article h1").count() == 1
    # images far down the page load when they are scrolled to
    page.evaluate(
        "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))"
    )
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("name", ALL)
def test_no_page_overflows_a_phone(visit, name):
    page = visit(name, viewport=PHONE)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ALL)
def test_contrast_and_alternative_texts(visit, name, theme):
    page = visit(name, theme=theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    found = Axe().run(
        page, options={"runOnly": ["color-contrast", "image-alt", "label", "link-name"]}
    )
    own = [
        f"{violation['id']}: {node['target']} {node['html'][:160]}"
        for violation in found.response["violations"]
        for node in violation["nodes"]
    ]
    assert own == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_mathematics_is_typeset(visit, name):
    page = visit(name)
    page.wait_for_selector("mjx-container", timeout=20_000, state="attached")
    page.evaluate("MathJax.startup.promise")
    assert page.locator("mjx-merror").count() == 0
    left = page.evaluate(
        "[...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length"
    )
    assert left == 0
    too_wide = page.evaluate(
        """[...document.querySelectorAll("mjx-container[display]")]
        .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.parentElement.id)"""
    )
    assert too_wide == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_its_sections_figures_and_data(visit, root, name):
    page = visit(name)
    headings = [re.sub(r"#$", "", t).strip() for t in page.locator("h2").all_inner_texts()]
    required = [
        "At a glance", "The claims", "The idea", "The method as code", "Experiments", "Verdicts",
        "Where it breaks", "Beyond the paper", "Try it", "Provenance",
    ]  # fmt: skip
    assert [h for h in headings if h in required] == required
    report = next(
        r for r in chapter_reports(Project(root)) if name.endswith(f"{r.files.slug}.html")
    )
    drawn = page.evaluate(
        "[...document.querySelectorAll('img[data-figure]')].map(i => i.dataset.figure)"
    )
    assert set(drawn) == {f.id for f in report.claims.figures}
    assert page.evaluate(
        "[...document.querySelectorAll('img[data-figure]')].every(i => i.alt.length > 20)"
    )
    assert page.locator("a.figure-data").count() == len(drawn)
    assert page.locator(".chapter-badges .verdict").count() == len(report.claims.claims)


def test_the_gallery_lists_all_thirty_papers_honestly(visit, root):
    page = visit("book/index.html")
    project = Project(root)
    written = [files.slug for files in project.chapters()]
    assert page.locator(".gallery-card").count() == len(written)
    assert page.locator(".to-come li").count() == len(project.part_of) - len(written)
    for card in page.locator(".gallery-card").all():
        card.scroll_into_view_if_needed()
        assert card.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") > 300
        assert card.locator(".verdict").count() >= 1


@pytest.fixture
def scoreboard(visit):
    page = visit("book/scoreboard.html")
    page.wait_for_selector("#scoreboard-filters.ready")
    return page


def shown(page: Page, column: int) -> list[str]:
    cells = page.locator(f"#scoreboard-table tbody tr td:nth-child({column})").all_inner_texts()
    return [c.strip() for c in cells]


def shown_verdicts(page: Page) -> list[str]:
    """Without the mark before them and the remark that runs differ below."""
    return [text.splitlines()[0].split(" ", 1)[1] for text in shown(page, 6)]


def test_the_scoreboard_holds_every_claim_and_its_numbers(scoreboard, root):
    reports = chapter_reports(Project(root))
    expected = sum(len(r.claims.claims) for r in reports)
    assert len(shown(scoreboard, 1)) == expected
    assert set(shown(scoreboard, 5)) == {"quick-cpu-seed0"}
    scoreboard.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    text = scoreboard.locator("#scoreboard-table").inner_text()
    conditions = sum(len(c.conditions) for r in reports for c in r.claims.claims)
    on_all_seeds = sum(len(r.seed_dependent) for r in reports)
    assert text.count("measured ") == conditions + on_all_seeds
    assert text.count("all recorded seeds together: ") == on_all_seeds > 0
    assert "undiscriminating" not in text


def test_the_scoreboard_opens_on_the_deciding_conditions(scoreboard, root):
    reports = chapter_reports(Project(root))
    measured = sum(bool(c.conditions) for r in reports for c in r.claims.claims)
    assert scoreboard.locator("#scoreboard-table").inner_text().count("measured ") == measured


def test_the_scoreboard_sorts(scoreboard):
    heading = scoreboard.locator("#scoreboard-table thead th", has_text="Verdict")

    def sorted_by_a_click(direction: str) -> list[str]:
        heading.click()
        expect(heading).to_have_attribute("aria-sort", direction)
        scoreboard.wait_for_timeout(300)  # the rows follow the heading
        return shown_verdicts(scoreboard)

    rising = sorted_by_a_click("ascending")
    assert len(set(rising)) > 1
    assert rising == sorted(rising)
    assert sorted_by_a_click("descending") == sorted(rising, reverse=True)


def test_the_scoreboard_filters_and_searches(scoreboard):
    everything = len(shown(scoreboard, 1))
    filters = scoreboard.locator("#scoreboard-filters")
    filters.get_by_label("Chapter").select_option("sinkhorn-newton-sparse")
    assert set(shown(scoreboard, 1)) == {"sinkhorn-newton-sparse"}
    filters.get_by_label("Verdict").select_option("not reproduced")
    assert set(shown_verdicts(scoreboard)) == {"not reproduced"}
    filters.get_by_label("Verdict").select_option("")
    filters.get_by_label("Chapter").select_option("")
    filters.get_by_label("Run").select_option("")
    assert len(shown(scoreboard, 1)) > everything
    scoreboard.locator(".dt-search input").fill("zzzz")
    assert "No claim matches" in scoreboard.locator("#scoreboard-table").inner_text()


def test_a_link_opens_the_scoreboard_at_one_chapter(visit):
    page = visit("book/scoreboard.html", query="?chapter=dynamical-stability")
    page.wait_for_selector("#scoreboard-filters.ready")
    assert set(shown(page, 1)) == {"dynamical-stability"}


def test_search_finds_a_method(visit):
    page = visit("search.html", query="?q=sinkhorn")
    # from a local file the browser forbids the fetch of summaries; the titles are found all the same
    page.wait_for_selector("#search-results li", timeout=15_000)
    assert "Sinkhorn" in page.locator("#search-results").inner_text()


def test_links_between_pages_lead_somewhere(html):
    missing = []
    for path in html.rglob("*.html"):
        for target in re.findall(
            r'(?:href|src)="([^"#?]+)[^"]*"', path.read_text("utf-8", "replace")
        ):
            if re.match(r"^(https?:|data:|mailto:|javascript:)", target) or "{" in target:
                continue
            if not (path.parent / target).exists():
                missing.append(f"{path.relative_to(html)} -> {target}")
    assert missing == []
