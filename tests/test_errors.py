"""The tree of errors is the one that its docstring draws."""

import re

import pytest

import unpool
from unpool import errors


def tree():
    found = [getattr(errors, name) for name in dir(errors)]
    return {e for e in found if isinstance(e, type) and issubclass(e, BaseException)}


def test_the_tree_is_the_drawn_one():
    drawn = dict(re.findall(r"[├└]─ (\w+) +\((\w+)\)", errors.__doc__))
    children = tree() - {errors.UnpoolError}
    assert {e.__name__ for e in children} == set(drawn)
    for error in children:
        assert [base.__name__ for base in error.__bases__] == ["UnpoolError", drawn[error.__name__]]
    assert errors.UnpoolError.__bases__ == (Exception,)
    assert unpool.UnpoolError is errors.UnpoolError


@pytest.mark.parametrize("error", sorted(tree(), key=lambda e: e.__name__))
def test_errors_carry_their_message(error):
    with pytest.raises(errors.UnpoolError, match=r"^got this; wanted that: do so$"):
        raise error("got this; wanted that: do so")
    assert error.__doc__
