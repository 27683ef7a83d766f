"""Names of the environment variables that are read far from any ``Config``.

All others are options, and named in ``config``.
"""

from __future__ import annotations

from typing import Final

CLUSTER: Final = "MOSAIC_CLUSTER"  # the key file of the cluster that is to be joined
LOCAL: Final = "MOSAIC_LOCAL"  # none is started: all runs in the program
# Where its monitor is reached from here, if that is not as its key says.
MONITOR_HOST: Final = "MOSAIC_MONITOR_HOST"
MONITOR_PORT: Final = "MOSAIC_MONITOR_PORT"
# Of the cluster that is to be joined, not of one that is started beside it.
OF_JOINING: Final = (CLUSTER, MONITOR_HOST, MONITOR_PORT)
# What engines set in all processes of a job: Slurm, Grid Engine, PBS, LSF.
OF_JOBS: Final = ("SLURM_JOB_ID", "SGE_TASK_ID", "PBS_JOBID", "LSB_JOBID")
# Read where errors are written down; nodes set it.
FULL_TRACEBACK: Final = "MOSAIC_FULL_TRACEBACK"
