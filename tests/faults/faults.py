"""The table of faults: all cells, of the files that say what is done.

Not here: nonsense that a member sends, F12, is in ``make fuzz``.
"""

from __future__ import annotations

import faults_of_daemons
import faults_of_freezing
import faults_of_heads
import faults_of_hosts
import faults_of_links
import faults_of_machines
import faults_of_moves
import faults_of_time
import faults_of_user_code
import faults_of_values
import faults_of_workers

CELLS = (
    *faults_of_workers.CELLS,
    *faults_of_freezing.CELLS,
    *faults_of_daemons.CELLS,
    *faults_of_heads.CELLS,
    *faults_of_hosts.CELLS,
    *faults_of_links.CELLS,
    *faults_of_machines.CELLS,
    *faults_of_moves.CELLS,
    *faults_of_user_code.CELLS,
    *faults_of_time.CELLS,
    *faults_of_values.CELLS,
)
