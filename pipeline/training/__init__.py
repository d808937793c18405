"""Training: loop.py (steps), private.py (private ones), schedule.py, state.py (survive a kill), run.py (cadence)."""
