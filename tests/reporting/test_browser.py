"""The page in a real browser: nothing fails, every figure is drawn, nothing is asked of a network.

Needs Playwright and a Chromium on the machine, such as Debian's.
"""

import pathlib
import shutil

import pytest
from report_examples import HOSTILE, made_up, page

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PAGES = {
    "three": made_up(),
    "one": made_up(["only/kernel"], epochs=2),
    "many": made_up([f"block{n}/conv/kernel" for n in range(300)], epochs=60),
    "hostile": made_up(HOSTILE),
    "bare": made_up(epochs=1, history=False, file=False, accuracy=False),
}
# What a figure shows: every SVG in it has a size, and something painted in a colour of its own.
DRAWN = """
() => [...document.querySelectorAll('figure')].map(figure => {
  const drawings = [...figure.querySelectorAll('svg')];
  const painted = drawings.filter(svg => {
    const box = svg.getBoundingClientRect();
    const shapes = [...svg.querySelectorAll('path, circle')];
    const seen = shapes.some(shape => {
      const style = getComputedStyle(shape), size = shape.getBBox();
      const colours = [style.fill, style.stroke].filter(c => c !== 'none');
      return size.width > 0 && colours.some(c => c !== 'rgb(0, 0, 0)');
    });
    return box.width > 40 && box.height > 8 && seen;
  });
  return {caption: figure.querySelector('figcaption').textContent,
    drawings: drawings.length, painted: painted.length};
})
"""
# Words that stick out of the page, or of a strip's cell into its neighbour's.
STICKING_OUT = """
() => [...document.querySelectorAll('main *')].filter(one => {
  const box = one.getBoundingClientRect();
  const scrolls = one.closest('.scroll, .tall, pre, svg');
  return box.width && !scrolls && box.right > document.documentElement.clientWidth + 1;
}).map(one => one.outerHTML.slice(0, 120))
"""
# The ratio of the contrast of a colour with the page's, for each kind of text.
CONTRAST = """
() => {
  const numbers = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const light = colour => numbers(colour).map(c => c / 255).map(
    c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
  ).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const kinds = '.kind, .file, .intro, figcaption, caption, .key, .name, .value, td, th, h1, h2,'
    + '.tiles b, .tiles span, summary, .chart text, .head';
  return [...document.querySelectorAll(kinds)].map(one => {
    const style = getComputedStyle(one);
    const own = light(one.closest('svg') ? style.fill : style.color), back = light(behind(one));
    return (Math.max(own, back) + 0.05) / (Math.min(own, back) + 0.05);
  }).reduce((least, ratio) => Math.min(least, ratio), 21);
}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, with a profile of its own."""
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=CHROMIUM, headless=True, args=FLAGS
        )
        yield context
        context.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, pathlib.Path]:
    """The pages, as files."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, facts in PAGES.items():
        found[name] = folder / f"{name}.html"
        found[name].write_bytes(page(facts).encode())
    return found


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_figure_is_drawn_and_fits_in_both_themes(browser, files, name, theme, width):
    tab = browser.new_page()
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.on("request", lambda request: asked.append(request.url))
    tab.emulate_media(color_scheme=theme)
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(files[name].as_uri())
    drawn = tab.evaluate(DRAWN)
    assert len(drawn) >= 3
    for figure in drawn:
        least = 1 if "over the epochs" in figure["caption"] else figure["drawings"]
        assert figure["painted"] >= least > 0, figure
    assert tab.evaluate(STICKING_OUT) == []
    assert tab.evaluate(CONTRAST) >= 4.5
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    page_colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page_colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[theme]
    assert said == []
    assert asked == [files[name].as_uri()]
    tab.close()


def test_on_paper_nothing_is_folded_and_the_page_is_light(browser, files):
    tab = browser.new_page()
    tab.emulate_media(media="print", color_scheme="dark")
    tab.goto(files["many"].as_uri())
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    heights = tab.evaluate(
        "[...document.querySelectorAll('section:not(.text) details .scroll')]"
        ".map(one => one.checkVisibility() && one.getBoundingClientRect().height)"
    )
    assert heights
    assert min(heights) > 20
    assert tab.evaluate(
        "[...document.querySelectorAll('.tall')].every(o => o.scrollHeight <= o.clientHeight + 1)"
    )
    tab.set_viewport_size({"width": 760, "height": 1000})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 760
    assert len(tab.pdf()) > 10_000
    tab.close()
