"""Evaluation: parsing, metrics, statistics, the resumable run and its page."""
