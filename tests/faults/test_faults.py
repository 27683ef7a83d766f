"""One cell of each fault; ``make faults`` runs all of them, with several seeds."""

from __future__ import annotations

import matrix
import pytest
from faults import CELLS

# A machine that does much else is slow: what counts here is that everybody is told.
SLACK = 10.0


def test_every_fault_has_a_cell_here_and_no_two_cells_have_one_name() -> None:
    names = [cell.name for cell in CELLS]
    assert len(names) == len(set(names))
    here = {cell.fault for cell in CELLS if cell.in_ci}
    assert here == {cell.fault for cell in CELLS}


@pytest.mark.timeout(300)
def test_the_rules_hold_whatever_goes_wrong() -> None:
    cells = [cell for cell in CELLS if cell.in_ci]
    reports = matrix.run_all(cells, [0], SLACK, jobs=3)
    assert not [matrix.describe(report) for report in reports if report.wrong]
