"""The page Results in a browser: what the API says of a training run and of many images."""

import pytest

from tests.serve.studio.conftest import served
from tests.serve.studio.test_results import output, training  # noqa: F401
from unpool.serve.studio.studio import Settings


@pytest.fixture
def results(open_page, models):
    """Opens the page for a folder."""
    pages = []

    def results(folder):
        context = served(models, Settings(results=folder))
        pages.append(context)
        page = open_page("/#/results", origin=context.__enter__())
        page.locator(".facts dt").first.wait_for()
        return page

    yield results
    for context in pages:
        context.__exit__(None, None, None)


def clean(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert axe.run(page).response["violations"] == []


def test_many_images(results, output):  # noqa: F811
    page = results(output)
    page.get_by_text("3 images", exact=True).wait_for()
    assert page.locator(".grid img").count() == 3
    page.wait_for_function("[...document.querySelectorAll('.grid img')].every(i => i.complete)")
    assert page.locator(".grid img").first.evaluate("image => image.naturalWidth") > 0
    clean(page)
    page.get_by_label("Failures").check()
    page.get_by_text("1 failed", exact=True).wait_for()
    page.get_by_text("is not an image of a known format").wait_for()


def test_a_training_run(results, training):  # noqa: F811
    (training / "plots/outside.png").unlink()
    page = results(training)
    page.get_by_text("few cats").wait_for()
    assert page.locator(".curve").count() == 3
    assert page.locator("tbody tr").count() == 2
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    clean(page)
