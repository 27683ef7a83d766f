"""Function tasks: functions that run in workers, and what decides when and how."""
