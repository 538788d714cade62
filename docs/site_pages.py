"""Pages of the documentation site that are files elsewhere in the repository: hooks of mkdocs, see mkdocs.yml.

The README becomes the first page. What it and the pages in docs/ link to outside of docs/ is put beside these pages
under its own path, so that every link is one inside of the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
README = "README.md"
COPIED = ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "jobs/README.md")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside of docs/."""
    for path in [*COPIED, *(f"benchmarks/{page.name}" for page in sorted(ROOT.glob("benchmarks/RESULTS*.md")))]:
        files.append(File.generated(config, path, content=_inside((ROOT / path).read_text(encoding="utf-8"), path)))
    files.append(
        File.generated(config, "index.md", content=_inside((ROOT / README).read_text(encoding="utf-8"), README))
    )
    files.append(File.generated(config, "examples.md", content=_examples()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of the pages in docs/ to the rest of the repository lead to the pages that were added."""
    return _inside(markdown, f"docs/{page.file.src_uri}") if page.file.generated_by is None else markdown


def _inside(markdown: str, path: str) -> str:
    """The text of a file of the repository, with links that hold on the site."""
    folder = path.rpartition("/")[0]
    up = "" if folder in ("", "docs") else "../" * (folder.count("/") + 1)

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        if "://" in target or not target:
            return match[0]
        file = (ROOT / folder / target).resolve().relative_to(ROOT).as_posix()
        moved = {README: "index.md"}.get(file, file.removeprefix("docs/"))
        if file == "examples" or file.startswith("examples/"):
            moved = "examples.md"
        return f"]({up}{moved}{f'#{anchor}' if anchor else ''})"

    return re.sub(r"\]\(([^)\s]+)\)", link, markdown)


def _examples() -> str:
    parts = ["# Examples\n\nScripts to start from, in the folder `examples` of the repository.\n"]
    for script in sorted(ROOT.glob("examples/*.py")):
        parts.append(f"## {script.stem}\n\n```python\n{script.read_text(encoding='utf-8').strip()}\n```\n")
    return "\n".join(parts)
