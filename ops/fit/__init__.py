"""Does a model fit these GPUs, with which flags, and what to change when it does not.

The formula is the host collection's own: `model_shape.py`, `model_precision.py` and `model_fit.py`
are links into `module_utils`, so that the preflight and this command cannot disagree.
"""
