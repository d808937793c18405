"""Prompts: the record in a model's folder that says how it is asked, requests, templates, and the one cut.

Training, evaluation, serving and chat build every prompt here, so a model is asked as it was taught. No torch.
"""
