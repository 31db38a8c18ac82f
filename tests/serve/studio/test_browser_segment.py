"""The page Segment in a browser, compared with Python."""


def test_opens_with_a_sample_segmented(page):
    page.get_by_text("Found").or_(page.get_by_text("Nothing found")).first.wait_for()
    assert page.locator(".thumbs img").count() == 4
