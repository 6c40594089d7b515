"""Patches, and problems as text; tests/test_params.py has those of params.yaml."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from minet.core.settings import Fraction, Settings, parse, patch_of, setting_problems


class Inner(Settings):
    """A section of `Outer`, by itself and by names."""

    RENAMED: ClassVar[Mapping[str, str]] = {"chance": "probability"}

    probability: Fraction
    sizes: tuple[int, ...]


class Outer(Settings):
    """Settings with a nested section, a range that depends on another setting, and old keys."""

    RENAMED: ClassVar[Mapping[str, str]] = {"most": "high"}

    low: Annotated[int, Field(ge=0)]
    high: int
    inner: Inner
    many: dict[str, Inner] = Field(default_factory=dict)

    @field_validator("high")
    @classmethod
    def _ascend(cls, high: int, info: ValidationInfo) -> int:
        if high < info.data.get("low", high):
            raise ValueError(f"must be at least low, {info.data['low']}")
        return high


VALID: dict[str, Any] = {"low": 1, "high": 2, "inner": {"probability": 0.5, "sizes": [1]}}
Patch = patch_of(Outer)


def problems(kind: type[Settings], raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as error:
        parse(kind, raw)
    return setting_problems(error.value, kind)


@pytest.mark.parametrize(
    "changes", [{}, {"low": 3}, {"high": -1}, {"inner": {}}, {"inner": {"sizes": []}}, VALID]
)
def test_a_patch_has_any_of_the_settings_in_nested_sections_too(changes: dict[str, Any]) -> None:
    """Ranges that depend on other settings are those of the whole."""
    patch = parse(Patch, changes)
    assert patch.model_dump(mode="json", exclude_unset=True) == changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"low": -1}, "low is -1; input should be greater than or equal to 0"),
        ({"high": "2"}, "high is '2'; input should be a valid integer"),
        ({"lo": 1}, "lo is not a setting; did you mean low? allowed: high, inner, low, many"),
        ({"inner": {"probability": 2}}, "inner.probability is 2; input should be less than or eq"),
        ({"inner": {"size": 1}}, "inner.size is not a setting; did you mean sizes? allowed: prob"),
    ],
)
def test_a_patch_has_the_types_and_ranges_of_the_whole(
    changes: dict[str, Any], expected: str
) -> None:
    for kind, raw in ((Patch, changes), (Outer, VALID | changes)):
        assert any(problem.startswith(expected) for problem in problems(kind, raw)), kind


def test_a_patch_may_have_null_where_the_whole_must_have_a_value() -> None:
    raw: dict[str, Any] = {"low": None, "inner": {"sizes": None, "probability": 1.0}}
    given = parse(Patch, raw).model_dump(mode="json", exclude_none=True)
    assert given == {"inner": {"probability": 1.0}}
    assert parse(Patch, {"inner": None}).model_dump(exclude_none=True) == {}
    expected = ["low is None; input should be a valid integer"]
    assert problems(Outer, VALID | {"low": None}) == expected


def test_a_patch_of_a_section_is_not_the_section() -> None:
    assert not Outer.model_fields.keys() - Patch.model_fields.keys()
    assert Outer.model_fields["low"].is_required()
    assert problems(Outer, VALID | {"low": 3}) == ["high is 2; must be at least low, 3"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("most",), "most was renamed to high"),
        (("inner", "chance"), "inner.chance was renamed to inner.probability"),
    ],
)
@pytest.mark.parametrize("kind", [Outer, Patch])
def test_an_old_key_is_reported_with_its_new_one(
    kind: type[Settings], key: tuple[str, ...], expected: str
) -> None:
    """Once, though the new key is missing in the whole."""
    raw = VALID | {"inner": VALID["inner"].copy()}
    section = raw if len(key) == 1 else raw["inner"]
    del section["high" if len(key) == 1 else "probability"]
    section[key[-1]] = 1
    assert problems(kind, raw) == [expected]


def test_an_old_key_below_a_name_that_users_choose_is_reported_with_its_new_one() -> None:
    raw = VALID | {"many": {"a": {"chance": 1, "sizes": []}}}
    assert problems(Outer, raw) == ["many.a.chance was renamed to many.a.probability"]


def test_a_missing_key_beside_an_old_one_of_another_setting_is_reported() -> None:
    raw = {"low": 1, "most": 2}
    assert problems(Outer, raw) == ["inner is missing", "most was renamed to high"]


def test_data_that_is_not_a_section_is_reported() -> None:
    with pytest.raises(ValidationError) as error:
        parse(Outer, 7)
    assert len(setting_problems(error.value, Outer)) == 1
