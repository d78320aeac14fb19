"""Every version gives the golden values of tests/golden; its renew.py renews them on purpose."""

import pytest
from golden import check, entries, renew
from golden.entries import ENTRIES, Entry

FILES = sorted({entry.file for entry in ENTRIES.values()})
CHEAP = ("preset r1", "guide diagonal, objective dreg", "evaluate bottom-up")


FIRST = 15
"""Losses that are compared here; ``python -m tests.golden.renew`` compares all 100."""


@pytest.mark.parametrize("name", ENTRIES)
def test_golden_values(name, monkeypatch):
    """The numbers to 1e-7 relative; after a change of the order of draws, their law too."""
    stored = check.load(ENTRIES[name].file)[name]
    expected = stored["values"]
    if "losses" in expected and name not in CHEAP:
        monkeypatch.setattr(entries, "STEPS", FIRST)
        expected = {"losses": expected["losses"][:FIRST]}
    different = check.differences(expected, ENTRIES[name].values())
    assert not different, f"{len(different)} differ, the first: {different[0]}"
    assert not stored["redrawn"] or check.same_in_distribution(name)


def test_files_hold_these_entries():
    for file in FILES:
        names = [name for name, entry in ENTRIES.items() if entry.file == file]
        assert list(check.load(file)) == names


@pytest.mark.parametrize("name", CHEAP)
def test_the_law_of_the_draws_is_checked(name):
    """Means over 100 and 40 seeds agree; a shift by one deviation is 5.3 standard errors."""
    stored, fresh = (
        check.load(ENTRIES[name].file)[name]["distribution"],
        check.distribution(name, check.FRESH_SEEDS),
    )
    assert check.same_in_distribution(name)
    assert check.standard_errors(stored, fresh) < 3
    shifted = stored | {"mean": fresh["mean"] + stored["std"]}
    assert check.standard_errors(shifted, fresh) > 3


def test_differences_are_found():
    expected = {"a": [1.0, 2.0], "b": float("nan"), "c": "text", "d": float("inf")}
    assert not check.differences(expected, expected | {"a": [1.0, 2.0 * (1 + 5e-8)]})
    found = check.differences(expected, expected | {"a": [1.0, 2.0 * (1 + 2e-7)]})
    assert found == ["values['a'][1]: expected 2.0, got 2.0000004"]
    for other in ({"a": [1.0]}, {"b": 0.0}, {"c": "texts"}, {"d": 1.0}, {"e": 1}):
        assert len(check.differences(expected, expected | other)) == 1


def entry(values, statistic):
    return Entry("presets", lambda: values, lambda: statistic)


def test_renewing_keeps_the_law(monkeypatch):
    """New draws of one law are taken; another law, or a refusal, only with ``redefine``."""
    name = CHEAP[0]
    old = check.load("presets")[name]
    law = old["distribution"]

    def near(shift):
        return lambda seed: law["mean"] + (shift + (-1) ** seed) * law["std"]

    def replaced(values, statistic, **options):
        monkeypatch.setitem(ENTRIES, name, entry(values, statistic))
        return renew.renewed(name, old, **options)

    assert replaced(old["values"], near(0), redefine=False) is old
    new = replaced({"losses": [1.0]}, near(0), redefine=False)
    assert new == {"values": {"losses": [1.0]}, "distribution": law, "redrawn": True}
    with pytest.raises(ValueError, match=r"^expected new draws of the same law for 'preset r1'"):
        replaced({"losses": [1.0]}, near(1), redefine=False)
    refusal = {"refused": "ValueError", "sentence": "expected more"}
    with pytest.raises(ValueError, match=r"^expected the values of 'preset r1', got"):
        replaced(refusal, near(0), redefine=False)
    assert replaced(refusal, near(0), redefine=True) == {"values": refusal, "redrawn": False}
    moved = replaced({"losses": [1.0]}, near(1), redefine=True)
    assert not moved["redrawn"]
    assert moved["distribution"]["mean"] == pytest.approx(law["mean"] + law["std"])
