"""The table of faults: all cells, of the files that say what is done.

Not here, and why:

* nonsense that a member sends (F12), and 10^5 frames of strangers (F13): ``make fuzz``;
* 10^4 strangers at once (F13): ``tests/comms/test_strangers.py``; that calls beside
  them take less than twice as long is not measured, as machines do much else;
* doubled and swapped bytes where there are no keys: nothing within a host does that,
  and what tells of it is the cipher;
* moments of faults that are no moments: what a method does (F17) it does at m4, a bad
  value (F16) is found when it is packed or unpacked, strangers (F13) know of no call;
* m8 of F8 and F9: each call of a relay there and back has a proxy in it.
"""

from __future__ import annotations

import faults_of_daemons
import faults_of_freezing
import faults_of_groups
import faults_of_heads
import faults_of_hosts
import faults_of_links
import faults_of_machines
import faults_of_moves
import faults_of_strangers
import faults_of_time
import faults_of_user_code
import faults_of_values
import faults_of_workers

CELLS = (
    *faults_of_workers.CELLS,
    *faults_of_freezing.CELLS,
    *faults_of_groups.CELLS,
    *faults_of_daemons.CELLS,
    *faults_of_heads.CELLS,
    *faults_of_hosts.CELLS,
    *faults_of_links.CELLS,
    *faults_of_machines.CELLS,
    *faults_of_moves.CELLS,
    *faults_of_strangers.CELLS,
    *faults_of_user_code.CELLS,
    *faults_of_time.CELLS,
    *faults_of_values.CELLS,
)
