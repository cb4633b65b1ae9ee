"""Collaboration: evidence + prompt template + generalist → answer."""

from gsco.collaboration.evidence import Evidence

__all__ = ["Evidence"]
