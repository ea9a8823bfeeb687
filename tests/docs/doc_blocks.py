"""What the tests of the docs read of Markdown: its fenced blocks, and its tables.

    <!-- run: continues -->          the block goes on with the program of the one before it
    <!-- run: file NAME -->          the block is the text of a file of that name; a program is not run by itself
    <!-- run: needs EXTRA -->        the block is run where that extra of the package is installed
    <!-- run: in the checkout -->    the commands are run in the project's directory
    <!-- run: any order -->          the lines of this output may come in any order
    ```python                        a program, or, in `sh`, a command a line
    ```
    ```output                        what the block before it prints; `...` stands for anything, `pid 7` for any pid
    ```

A comment stands on the line before its block; several options are separated by commas.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

LANGUAGES = {"python", "sh", "output", "toml", "text", "json", "c"}
"""Of fenced blocks. Those in braces are Sphinx's own directives."""

_FENCE = re.compile(r"^(?P<mark>```+|:::+)(?P<language>\S*)[^`]*$")
_OPTIONS = re.compile(r"^<!-- run: (?P<options>.*) -->$")


@dataclass
class Block:
    """A fenced block, and what a comment before it says of its run."""

    page: Path
    line: int
    language: str
    text: str
    options: list[str] = field(default_factory=list)

    def option(self, name: str) -> str | None:
        """What stands behind an option; None where it is not given."""
        found = [given for given in self.options if given.split()[0] == name]
        return found[0].partition(" ")[2] if found else None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order; a block within another is a part of that."""
    found: list[Block] = []
    options: list[str] = []
    closing, begun = "", 0
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if closing:
            if line.strip() == closing:
                found[-1].text = "".join(f"{text}\n" for text in lines[begun : number - 1])
                closing = ""
        elif fence := _FENCE.match(line):
            closing, begun = fence["mark"], number
            found.append(Block(page, number, fence["language"], "", options))
            options = []
        elif given := _OPTIONS.match(line):
            options = [option.strip() for option in given["options"].split(",")]
    assert not closing, f"{page}: the block of line {begun} does not end"
    return found


def rows(page: Path, heading: str | None = None) -> list[list[str]]:
    """The cells of the first table of a page, or of the part under a heading, without the table's head."""
    text = page.read_text(encoding="utf-8")
    if heading is not None:
        text = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
        text = re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None, f"{page} has no table under {heading!r}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| "))] for line in table[0].splitlines()[2:]]


def codes(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)
