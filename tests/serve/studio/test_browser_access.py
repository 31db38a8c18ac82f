"""All pages by keyboard alone, for assistive technology, and on a phone."""

import pytest

from tests.serve.studio.test_browser_segment import choose, path, pixels, settled  # noqa: F401

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


def every_page(page):
    """Visit each page of the studio; its name, when it has settled."""
    names = page.locator("#pages a").evaluate_all("links => links.map((link) => link.dataset.page)")
    assert names[0] == "segment"
    for name in names:
        page.locator(f"#pages a[data-page={name}]").click()
        page.locator(f"#pages a[data-page={name}][aria-current=page]").wait_for()
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(300)
        yield name


def violations(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [(v["id"], [node["html"][:150] for node in v["nodes"][:3]]) for v in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
def test_no_barriers(open_page, scheme, phone):
    page = open_page(color_scheme=scheme, **(PHONE if phone else {}))
    settled(page)
    for name in every_page(page):
        assert not violations(page), name
    page.locator("#help").click()
    page.get_by_role("dialog").wait_for()
    assert not violations(page), "help"


def test_the_button_of_the_color_scheme(open_page):
    page = open_page(color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Light colors").click()
    assert page.evaluate(ground) != dark
    page.reload()
    assert page.evaluate(ground) != dark
    page.get_by_role("button", name="Dark colors").click()
    assert page.evaluate(ground) == dark


FOCUSED = """() => {
  const focused = document.activeElement;
  const ring = [focused, focused.nextElementSibling, focused.parentElement].some(
    (e) => e && getComputedStyle(e).outlineStyle !== "none" && e.matches(
      ":focus-visible, :focus-within, :focus-visible + *"));
  const box = focused.getBoundingClientRect();
  const name = focused.getAttribute("aria-label") || focused.labels?.[0]?.textContent
    || focused.textContent || focused.querySelector("img")?.alt;
  const { id } = focused;
  return { body: focused === document.body, ring, size: box.width * box.height, name, id };
}"""


def test_everything_is_reached_by_tab_with_a_visible_focus(page):
    settled(page)
    for name in every_page(page):
        page.evaluate("document.activeElement.blur()")
        page.mouse.click(640, 5)
        names = []
        for _ in range(80):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            if focused["body"] or (names and focused["id"] == "skip"):
                break
            assert focused["ring"], f"{name}: the focus is not seen on {focused}"
            assert focused["name"].strip(), f"{name}: no name: {focused}"
            names.append(focused["name"].strip())
        assert len(names) > 8, names


def tab_to(page, selector):
    for _ in range(60):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not reached")


def test_segment_by_keyboard_alone(page, path):  # noqa: F811
    settled(page)
    tab_to(page, "#file")
    page.set_input_files(":focus", path)  # Enter opens a dialog of the system
    page.locator(".thumb[aria-pressed=true][title='cat.png']").wait_for()
    settled(page)
    tab_to(page, "[type=radio]")
    page.keyboard.press("ArrowRight")
    page.locator(".summary").get_by_text("instance-wise").wait_for()
    settled(page)
    page.keyboard.press("w")
    page.locator(".summary").get_by_text("whole").wait_for()
    settled(page)
    page.locator(".canvas").focus()
    page.keyboard.press("ArrowRight")
    assert "at (46, 30)" in page.locator(".readout").text_content()
    page.keyboard.press("Shift+ArrowUp")
    assert "at (46, 21)" in page.locator(".readout").text_content()
    page.keyboard.press("]")
    assert page.locator(".classes li.lit").count() == 1
    assert pixels(page)[..., 3].any()
    page.keyboard.press("m")
    assert not pixels(page)[..., 3].any()
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_text("dense CRF").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(open_page, path, scheme):  # noqa: F811
    page = open_page(color_scheme=scheme, **PHONE)
    settled(page)
    for name in every_page(page):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    page.locator("#pages a").first.click()
    choose(page, path)
    box = page.locator(".canvas").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "at (45, 30)" in page.locator(".readout").text_content()
    small = page.locator("button, select, summary, a.quiet, .toggle, #pages a").evaluate_all(
        "all => all.filter((e) => e.offsetParent && e.getBoundingClientRect().height < 44)"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert not small
