"""Specialists: image → calibrated probabilities and an embedding."""

from gsco.specialists.base import Opinion, Specialist

__all__ = ["Opinion", "Specialist"]
