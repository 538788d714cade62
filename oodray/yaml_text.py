"""YAML as version 1.2 reads it: PyYAML reads 1.1, in which `2:16` is 136, `010` is 8, and `yes` and `on` are true."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaml.nodes import MappingNode

_TAG = "tag:yaml.org,2002:"
_CORE = (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
    ("float", r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN", [*"-+."]),
    ("merge", "<<", ["<"]),  # of 1.1, and in use
)
"""Type, pattern and first letters of the plain values of YAML's core schema, the first match counting."""


def load_yaml(text: str) -> Any:
    """What a YAML document holds: dictionaries, lists, texts, numbers, booleans and None.

    Raises:
        ValueError: it is no valid YAML, or gives a key twice.
        RecursionError: lists in lists in lists ...

    >>> load_yaml("workers: 2:16\\ntau: 1e-1\\nroot: on")
    {'workers': '2:16', 'tau': 0.1, 'root': 'on'}
    """
    import yaml

    try:
        loader = _loader()(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (RecursionError, ValueError):
        raise
    except Exception as error:  # PyYAML's own, and what it raises of a tag whose value is none: `!!timestamp x`
        raise ValueError(
            str(error) if isinstance(error, yaml.YAMLError) else f"{type(error).__name__}: {error}"
        ) from error


@functools.cache
def _loader() -> Any:
    """PyYAML's safe loader with the values of the core schema, made at the first use: `import oodray` loads no YAML."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> MappingNode:
            """A mapping as it is written, each of whose keys is given once; what `<<` brings in comes later."""
            node = super().compose_mapping_node(anchor)
            lines: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    line, name = key.start_mark.line + 1, (key.tag, key.value)
                    if name in lines:
                        raise ValueError(f"{key.value} is given twice, in line {lines[name]} and in line {line}")
                    lines[name] = line
            return node

    # One of its own: PyYAML would add to those of 1.1.
    Loader.yaml_implicit_resolvers = {}
    for kind, pattern, first in _CORE:
        Loader.add_implicit_resolver(_TAG + kind, re.compile(f"(?:{pattern})\\Z"), first)
    Loader.add_constructor(_TAG + "int", _whole)
    Loader.add_constructor(_TAG + "float", _number)
    return Loader


def _whole(loader: Any, node: Any) -> int:
    text: str = loader.construct_scalar(node)
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def _number(loader: Any, node: Any) -> float:
    text: str = loader.construct_scalar(node)
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
