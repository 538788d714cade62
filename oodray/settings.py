"""What a setting is: declared once, beside its type and default; checks, options and the table in the docs follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from reprlib import Repr
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

Settings = Mapping[str, Any]
"""Values of settings by name."""


@dataclass(frozen=True)
class Check:
    """What the values of a setting must be beyond their type, and that in words."""

    accepts: Callable[[Any], bool]
    expected: str


@dataclass(frozen=True)
class About:
    """What is declared of a setting: `k: Annotated[int, About("Clusters per image", whole(1, 255))] = 5`.

    Attributes:
        help: what it is, without a full stop.
        check: of its values.
        unset: what is taken where it is None or empty.
        identity: whether it decides a result: then it must be the same when a run is continued.
        commands: those that have an option for it.
        option: how the option is written; None for `--` and the name.
        from_text: the settings that the text of the option gives, where that is not a value of the setting's type.
        repeated: whether the option may be given several times: its values are then a list.
    """

    help: str
    check: Check | None = None
    unset: str | None = None
    identity: bool = True
    commands: tuple[str, ...] = ("run", "calibrate", "fit")
    option: str | None = None
    from_text: Callable[[str], Settings] | None = None
    repeated: bool = False


@dataclass(frozen=True)
class Setting:
    """A setting as its class declares it.

    Attributes:
        name: in config files and in Python.
        type: of its values, without None.
        may_be_none: whether None is a value too.
        default: None where it has none, too.
        about: the rest.
    """

    name: str
    type: Any
    may_be_none: bool
    default: Any
    about: About

    @property
    def option(self) -> str:
        """How its option is written."""
        return self.about.option or f"--{self.name.replace('_', '-')}"

    @property
    def help(self) -> str:
        """What it is, and what is taken where it is not given, in one sentence."""
        return f"{self.about.help}{f'; by default {self.about.unset}' if self.about.unset else ''}."

    @property
    def expected(self) -> str:
        """The type of its values in words."""
        return _TYPES[self.type]

    def accepts(self, value: Any) -> bool:
        """Whether a value of the right type passes the check."""
        return value is None or self.about.check is None or self.about.check.accepts(value)

    def converted(self, value: Any) -> Any:
        """`value` as the setting's type.

        A whole number may stand for a float, a number of numpy for Python's, and a list, range or array for a tuple.

        Raises:
            ValueError: if it is of another type.
            OverflowError: if it is too large for a float.
        """
        if value is None and self.may_be_none:
            return None
        if get_origin(self.type) is not tuple:
            return _converted(value, self.type)
        entries = value.tolist() if hasattr(value, "tolist") else value  # of arrays, without an import of numpy
        if not isinstance(entries, list | tuple | range):
            raise ValueError
        return tuple(_converted(entry, get_args(self.type)[0]) for entry in entries)


def declared_settings(config: type) -> dict[str, Setting]:
    """The settings that a dataclass declares, by name, in order."""
    hints = get_type_hints(config, include_extras=True)
    found = {}
    for field in fields(config):
        annotation, about = get_args(hints[field.name])
        may_be_none = isinstance(annotation, UnionType)
        kind = get_args(annotation)[0] if may_be_none else annotation
        default = None if field.default is MISSING else field.default
        found[field.name] = Setting(field.name, kind, may_be_none, default, about)
    return found


def whole(least: int, most: int | None = None) -> Check:
    """Whole numbers of a range; it has no end where `most` is None.

    >>> whole(1).expected, whole(1, 255).accepts(256)
    ('a whole number of at least 1', False)
    """
    if most is None:
        return Check(lambda value: value >= least, f"a whole number of at least {least}")
    return Check(lambda value: least <= value <= most, f"a whole number from {least} to {most}")


def one_of(names: Iterable[str]) -> Check:
    """One of some names."""
    known = tuple(names)
    return Check(lambda value: value in known, f"one of {', '.join(known)}")


def seconds(expected: str) -> Check:
    """A time that may be 0, and ends."""
    return Check(lambda value: value >= 0 and math.isfinite(value), f"a number of seconds, {expected}")


def shown(value: Any) -> str:
    """A value for a message: anchors of YAML make a few bytes of file a value of gigabytes."""
    brief = Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 2, 60, 60
    try:
        return brief.repr(value)
    except ValueError:  # Python prints no number of more than 4300 digits
        return "a number of thousands of digits"


def _converted(value: Any, kind: type) -> Any:
    """`value` as a bool, int, float or str; raises as `Setting.converted` does."""
    if type(value) is kind:
        return value
    if isinstance(value, bool):  # which is an int, too
        raise ValueError
    if kind is int and isinstance(value, Integral):
        return int(value)
    if kind is float and isinstance(value, Real):
        return float(value)
    raise ValueError


_TYPES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[str, ...]: "a list of names",
    tuple[int, ...]: "a list of whole numbers",
    tuple[float, ...]: "a list of numbers",
}
