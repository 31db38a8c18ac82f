from unpool.data.entries import as_key, brief, printable


def test_keys():
    assert [as_key(v) for v in (7, 7.0, "7", "07x", None, True, 7.5, float("nan"), [1])] == [
        *(7, 7, 7, "07x", None, None, None, None, None)
    ]


def test_values_of_any_size_are_short_in_messages():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for value in (10**5000, "a" * 10**6, nested):
        assert len(brief(value)) <= 80
    assert len(printable(10**5000)) <= 80
