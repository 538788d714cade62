"""Options made from the settings that `oodray.config.RunConfig` declares."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

import typer

from oodray.config import SETTINGS
from oodray.settings import Setting

Command = Callable[..., None]


def option(setting: Setting) -> Any:
    """What typer needs to know of the option of a setting."""
    return typer.Option(setting.option, help=setting.help)


AllowOutsideRoot = Annotated[bool | None, option(SETTINGS["allow_outside_root"])]
"""For commands that take this setting and no other."""


def with_all_maps(arguments: list[str]) -> list[str]:
    """Arguments in which `--keep-maps` without a name means all: typer has no option with a value that may be left out.

    >>> with_all_maps(["run", "--keep-maps", "--k", "5"]), with_all_maps(["run", "--keep-maps"])
    (['run', '--keep-maps', 'all', '--k', '5'], ['run', '--keep-maps', 'all'])
    """
    found = []
    for argument, following in pairwise([*arguments, "--"]):
        found.append(argument)
        if argument == "--keep-maps" and following.startswith("-"):
            found.append("all")
    return found


def with_settings(command: Command) -> Command:
    """The command, with an option for every setting that is declared for one of its name, before options of its own.

    Its first parameter, `settings`, gets those that were given, by name.
    """
    declared = [setting for setting in SETTINGS.values() if command.__name__ in setting.about.commands]
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def call(**given: Any) -> None:
        settings: dict[str, Any] = {}
        for setting in declared:
            settings |= _settings_of(setting, given.pop(setting.name))
        command(settings, **given)

    # typer reads options from the signature.
    vars(call)["__signature__"] = inspect.Signature([*map(_parameter, declared), *own])
    return call


def _parameter(setting: Setting) -> inspect.Parameter:
    kind = str if setting.about.from_text else setting.type
    annotation = _annotation(list[kind] if setting.about.repeated else kind, setting)  # type: ignore[valid-type]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _annotation(kind: Any, setting: Setting) -> Any:
    return Annotated[kind | None, option(setting)]


def _settings_of(setting: Setting, value: Any) -> dict[str, Any]:
    """What an option gives; nothing where it was not given."""
    if value is None or value == []:
        return {}
    return {setting.name: value} if setting.about.from_text is None else dict(setting.about.from_text(value))
