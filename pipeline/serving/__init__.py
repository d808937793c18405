"""Serving: the HTTP server `tohum serve` in the shape of OpenAI's API, over models of the registry or the project.

One thread computes (decoding.py); asyncio reads requests, checks them (gate.py, bodies.py) and writes answers as their
tokens arrive (answers.py). Prompts and answers are the task's (pipeline/tasks), tokens the engine's
(pipeline/inference/engine.py), labels and numbers come from pipeline/inference/labels.py.
"""
