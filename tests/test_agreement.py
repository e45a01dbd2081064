"""Two circuits of one model compared: by class, by head, and beside chance."""

import math

import pytest

from ioi_course import proposals
from ioi_course.agreement import agreement, evaluate
from ioi_course.roles import PAPER, Circuit


def small(**roles):
    roles = {role.replace("_", " "): heads for role, heads in roles.items()}
    return Circuit(roles, dict.fromkeys(roles, "END"), (), "m", "test")


ONE = small(name_mover=[(9, 9), (9, 6)], steering=[(8, 6), (7, 3)], other=[(11, 3)])
TWO = small(name_mover=[(9, 9)], inhibition=[(8, 6), (7, 9)], backup=[(9, 6)])


def test_a_circuit_agrees_with_itself():
    same = agreement(PAPER, PAPER)
    assert (same.table()[["precision", "recall"]] == 1).all(axis=None)
    assert same.by_head()["same"].all()
    crossed = same.crossed().to_numpy()
    assert crossed.trace() == len(PAPER) == crossed.sum()
    assert same.by_chance == pytest.approx(26 * 26 / 144)


def test_by_class_and_by_head():
    plain, matched = (
        agreement(ONE, TWO),
        agreement(ONE, TWO, {"steering": "inhibition"}),
    )
    one, two = plain.table(), matched.table()
    assert one.loc["all classes", "right"] == 1
    assert two.loc["all classes", "right"] == 2
    assert one.loc["any class"].tolist() == two.loc["any class"].tolist()
    assert two.loc["any class"].tolist() == pytest.approx([4, 5, 3, 3 / 5, 3 / 4])
    assert math.isnan(one.loc["inhibition", "precision"])
    heads = matched.by_head()
    assert heads.loc["L8H6"].tolist() == ["steering", "inhibition", True]
    assert heads.loc["L9H6"].tolist() == ["name mover", "backup", False]
    assert heads.loc["L7H9"].tolist() == ["", "inhibition", False] and len(heads) == 6
    assert not plain.by_head().loc["L8H6", "same"]


def test_the_cross_table_counts_each_head_once():
    crossed = agreement(ONE, TWO).crossed()
    assert crossed.to_numpy().sum() == 6 and crossed.loc["steering", "inhibition"] == 1
    assert crossed.loc["other", "no class"] == 1
    assert crossed.loc["no class", "inhibition"] == 1
    assert list(crossed.index) == ["name mover", "steering", "other", "no class"]


def test_two_words_may_mean_one_class():
    other = small(writer=[(9, 9), (11, 3)])
    merged = agreement(ONE, other, {"name mover": "writer", "other": "writer"})
    assert merged.table().loc["writer"].tolist() == pytest.approx([2, 3, 2, 2 / 3, 1])


def test_how_it_shows_itself():
    text, both = repr(agreement(ONE, TWO)), "3 of 6 heads are in both circuits of m"
    assert text.startswith(f"{both} (chance would give 0.1)") and "name mover" in text
    assert "<table" in agreement(ONE, TWO)._repr_html_()


def test_what_it_refuses():
    with pytest.raises(ValueError, match="12 layers of 12 heads, but the key is for 2"):
        agreement(ONE, Circuit({}, {}, (), "m", "test", 2, 2))
    with pytest.raises(ValueError, match="same: there is no class 'stering'; that"):
        agreement(ONE, TWO, {"stering": "backup"})
    with pytest.raises(ValueError, match="translated to: there is no class 'inhib'"):
        agreement(ONE, TWO, {"steering": "inhib"})
    with pytest.raises(TypeError, match="one of these is a dict"):
        agreement(ONE, {})


def test_the_finder_judges_by_the_same_function():
    assert proposals.evaluate is evaluate
    empty = small()
    assert evaluate(empty, ONE)["recall"].iloc[:-2].eq(0).all()
    assert len(agreement(empty, ONE).by_head()) == 5
