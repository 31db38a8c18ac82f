"""A file of experiment results: kept between runs, and never mixed with another protocol's."""

import pytest

from experiments.results_file import ResultsFile
from unpool.errors import OptionError


def test_results_are_kept_between_runs(tmp_path):
    file = tmp_path / "results.json"
    ResultsFile(file, {"steps": 3}).add("one", {"mse": 1.0})
    again = ResultsFile(file, {"steps": 3})
    assert again.results == {"one": {"mse": 1.0}}
    again.add("two", {"mse": 2.0})
    assert list(ResultsFile(file, {"steps": 3}).results) == ["one", "two"]


def test_results_of_another_protocol_are_refused(tmp_path):
    file = tmp_path / "results.json"
    ResultsFile(file, {"steps": 3}).add("one", {"mse": 1.0})
    with pytest.raises(OptionError, match="has results of steps 3; wanted steps 4: use the same"):
        ResultsFile(file, {"steps": 4})


@pytest.mark.parametrize("text", ['{"protocol": {}}', "[]", "{"])
def test_damaged_files_are_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(OptionError, match="is damaged; move it away"):
        ResultsFile(tmp_path / "results.json", {"steps": 3})
