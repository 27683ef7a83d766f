"""The code of docs/tasks.md runs, in order, in one cluster."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from types import CodeType

PAGE = Path(__file__).parent.parent / "docs" / "tasks.md"
LIMIT_S = 45.0
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[CodeType]:
    """The code of the page, as a notebook would run it; lines are those of the page."""
    text = PAGE.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        above = text[: match.start(1)].count("\n")
        source = "\n" * above + match[1]
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        found.append(compile(source, str(PAGE), "exec", flags))
    return found


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of open() in short examples
def test_the_code_of_the_page_runs() -> None:
    # Of a script, so that its functions travel by value.
    scope: dict[str, Any] = {"__name__": "__main__"}

    async def main(runtime: Any) -> None:
        scope["runtime"] = runtime
        async with asyncio.timeout(LIMIT_S):
            for code in blocks():
                result = eval(code, scope)
                if inspect.isawaitable(result):
                    await result

    mosaic.run(main, num_workers=2)
