from unpool.data.layouts.splits import short_names


def test_splits_are_named_without_their_year_unless_that_is_all_that_differs():
    names = ("train2017", "val2014", "val2017", "default", "2020", "test-dev")
    assert sorted(short_names(names)) == [
        *("2020", "default", "test-dev", "train", "val2014", "val2017")
    ]


def test_other_words_for_the_usual_splits():
    assert short_names(["training", "validation", "Testing"]) == {
        "train": "training",
        "val": "validation",
        "test": "Testing",
    }
    assert short_names(["Train", "valid"]) == {"train": "Train", "val": "valid"}
    assert short_names(["val", "valid"]) == {"val": "val", "valid": "valid"}
