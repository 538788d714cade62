"""Code that came with a dataset is not run: a dataset may be anybody's, and a config or a factory is Python."""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

from oodray.errors import ConfigError
from oodray.models.weights.hub import is_hugging_face
from oodray.storage.place import Place, is_inside


def refuse_code_of_the_dataset(model: str, root: Place) -> None:
    """Refuse a config or a factory that lies inside of a dataset's folder; nothing is imported.

    Raises:
        ConfigError: naming the file.
    """
    for code in _code_of(model):
        if is_inside(code.resolve(), root.resolve()):
            raise ConfigError(
                f"{code} lies inside the dataset's folder {root}, and it is Python that would be run: read it, and "
                "copy it elsewhere if it is meant; or pass a --root that holds the images alone"
            )


def _code_of(model: str) -> list[Path]:
    """A config, or what the working directory has of a factory's modules."""
    if model.endswith(".py"):
        return [path for path in (Path(model).expanduser(),) if path.is_file()]
    module, _, factory = model.partition(":")
    if is_hugging_face(model) or not factory:
        return []
    here, (package, *_) = Path.cwd(), module.split(".")
    # A package runs code of its own before its modules do.
    found = PathFinder.find_spec(package, [str(here)])
    places = [] if found is None else [found.origin] if found.origin else list(found.submodule_search_locations or ())
    code = here.joinpath(*module.split(".")).with_suffix(".py")
    return [path for path in (code,) if path.is_file()] + [Path(place) for place in places if place]
