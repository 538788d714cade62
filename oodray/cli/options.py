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


WHAT, NETWORK, METHOD, WHERE, HOW = _ORDER = ("What", "Network", "Method and scores", "Where", "How")

_GROUPS = {
    WHAT: ("dataset", "root", "split", "label_codes", "labels", "shard", "allow_outside_root"),
    NETWORK: ("model", "checkpoint", "flip", "scales", "mc_dropout", "feature_stage", "features", "dtype"),
    WHERE: ("keep_maps", "keep_features_gb"),
    HOW: ("batch_size", "threads", "image_timeout"),
}
_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names}


def option(setting: Setting) -> Any:
    """What typer needs to know of the option of a setting."""
    return typer.Option(setting.option, help=_help(setting), rich_help_panel=_group(setting))


def _group(setting: Setting) -> str:
    """The part of the help that has an option: what decides a result belongs to the method, else it says how."""
    return _GROUP_OF.get(setting.name, METHOD if setting.about.identity or setting.name in _SOURCES_OF_TAU else HOW)


_SOURCES_OF_TAU = ("fit", "calibrate_on")


def _help(setting: Setting) -> str:
    """What a setting is, with its default."""
    if setting.about.unset or setting.default is None:
        return setting.help
    default = setting.default
    if isinstance(default, bool):
        default = setting.option.partition("/")[2] or "off"
    text = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{setting.about.help}; by default {text}."


AllowOutsideRoot = Annotated[bool | None, option(SETTINGS["allow_outside_root"])]
"""For commands that take this setting and no other."""


_LEFT_OUT = {"--keep-maps": "all", "--components": "auto"}


def with_values(arguments: list[str]) -> list[str]:
    """Arguments in which options whose value may be left out have one: typer has no such options.

    >>> with_values(["run", "--keep-maps", "--k", "5"]), with_values(["evaluate", "OUT", "--components"])
    (['run', '--keep-maps', 'all', '--k', '5'], ['evaluate', 'OUT', '--components', 'auto'])
    """
    found = []
    for argument, following in pairwise([*arguments, "--"]):
        found.append(argument)
        if argument in _LEFT_OUT and following.startswith("-"):
            found.append(_LEFT_OUT[argument])
    return found


def with_settings(command: Command) -> Command:
    """The command, with an option for every setting that is declared for one of its name, before options of its own.

    Its first parameter, `settings`, gets those that were given, by name.
    """
    declared = [setting for setting in SETTINGS.values() if command.__name__ in setting.about.commands]
    declared.sort(key=lambda setting: _ORDER.index(_group(setting)))  # in which the help has its parts
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
