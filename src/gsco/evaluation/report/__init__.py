"""The report page of a run: one self-contained HTML file, made from its figures and its log."""

from gsco.evaluation.report.render import render_report
from gsco.evaluation.report.thumbnails import Thumbnail, file_thumbnail

__all__ = ["Thumbnail", "file_thumbnail", "render_report"]
