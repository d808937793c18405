"""Augmentation: changed copies (twins) of training texts. Each file has `Settings` and `build(settings, context)`.

`build` gives a pipeline.data.originals.Augmentation, whose `texts(originals)` yields one text for each original, in
order: the changed one, None where there is nothing to change, or a BadRow where the change failed.
"""
