"""A live object is as wanted when all that we want is there."""

import pytest

from pippin_operator.drift import first_difference


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        ({"a": 1}, {"a": 1, "defaulted": 2}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2], "c": 3}}),
        ([{"name": "x", "v": 1}], [{"name": "added"}, {"name": "x", "v": 1, "w": 2}]),
        ({"requests": {"memory": "1024Mi"}}, {"requests": {"memory": "1Gi"}}),
        ({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}),
        ({"emptyDir": {}}, {"emptyDir": {}}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "a", "effect": "x"}]}),
    ],
)
def test_as_wanted(wanted, live):
    assert first_difference(wanted, live) is None


@pytest.mark.parametrize(
    ("wanted", "live", "where"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ".a.b"),
        ({"a": {"b": 1}}, {"a": {}}, ".a.b"),
        ({"a": {"b": 1}}, {"a": "x"}, ".a"),
        ({"args": ["a", "b"]}, {"args": ["a"]}, ".args"),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, ".args[0]"),
        ({"args": ["a"]}, {"args": "a"}, ".args"),
        ([{"name": "x", "v": 1}], [{"name": "x", "v": 2}], ".x.v"),
        ([{"name": "x"}], [{"name": "y"}], ".x"),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "a"}, {"key": "b"}]}, None),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"memory": "1G"}}, ".requests.memory"),
        ({"version": "1000m"}, {"version": "1"}, ".version"),
    ],
)
def test_not_as_wanted(wanted, live, where):
    assert first_difference(wanted, live) == (where or ".tolerations")
