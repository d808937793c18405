"""Training: recipe.py (builds the parts), examples.py, loop.py (updates), run.py (cadence), state.py (resume).

Also schedule.py (learning rate, batch size), private.py (DP-SGD), tensors.py and interruption.py.
"""
