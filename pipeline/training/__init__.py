"""Training: loop.py (the steps), schedule.py (the rates), state.py (survive a kill), run.py (the cadence)."""
