"""Too few files for a cluster: said at once, and nothing is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunScript

PROGRAM = """
import resource
import mosaic_like as mosaic

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, hard))

@mosaic.tessera
class Echo:
    def ping(self, x):
        return x

async def main(runtime):
    print(await mosaic.gather(Echo.remote().ping(i) for i in range(4)))

mosaic.run(main, num_workers=2)
"""


# With 8 not even a loop can be made.
@pytest.mark.parametrize("limit", [8, 24, 40])
def test_too_few_files_are_an_error_at_once(run_script: RunScript, limit: int) -> None:
    result = run_script(PROGRAM.format(limit=limit))
    assert result.code == 1
    assert f"may have {limit} files open here, and 2 workers need" in result.stderr
    assert "ulimit -n 1024" in result.stderr
    assert "event loop" not in result.stderr


@pytest.mark.parametrize(
    ("limit", "start"),
    [
        (8, "mosaic.init(num_workers=2)"),
        (12, "import asyncio; asyncio.run(main())"),  # of which its loop has some
    ],
)
def test_too_few_files_for_a_runtime_that_stays_are_an_error_at_once(
    run_script: RunScript, limit: int, start: str
) -> None:
    lines = [
        *PROGRAM.format(limit=limit).splitlines()[:6],
        "async def main():",
        "    await mosaic.interactive('on', num_workers=2)",
        start,
    ]
    result = run_script("\n".join(lines))
    assert result.code == 1
    assert f"may have {limit} files open here, and 2 workers need" in result.stderr
    assert "event loop" not in result.stderr


def test_just_enough_files_are_enough(run_script: RunScript) -> None:
    result = run_script(PROGRAM.format(limit=48))
    assert (result.code, result.stdout) == (0, "[0, 1, 2, 3]\n"), result.stderr
