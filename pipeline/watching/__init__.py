"""Watch of a served model: counts of its requests, drift against a reference, accuracy from late labels.

found = look("spam-lora")           # verdict quiet, warning or alarm; evidence input, quality
if found.verdict == "alarm" and found.new:
    ...                             # tell somebody, then
    announced("spam-lora", found.episode)
"""

from pipeline.watching.looking import Look, accept, announced, look

__all__ = ["Look", "accept", "announced", "look"]
