"""Synthetic chest-radiograph phantoms: images, labels, reports and questions from one ground truth.

They look like schematic radiographs and are no substitute for them: every folder, card and page that
shows them says that they are synthetic. Left and right are the patient's (radiological convention: the
patient's right side is drawn on the left of the image).
"""

from gsco.cases.phantoms.anatomy import Anatomy, Pose
from gsco.cases.phantoms.dataset import generate_phantoms
from gsco.cases.phantoms.draw import draw_phantom
from gsco.cases.phantoms.findings import FINDINGS, Finding, readable_name
from gsco.cases.phantoms.scanner import SCANNERS
from gsco.cases.phantoms.spec import PhantomSpec, sample_spec

__all__ = [
    "FINDINGS",
    "SCANNERS",
    "Anatomy",
    "Finding",
    "PhantomSpec",
    "Pose",
    "draw_phantom",
    "generate_phantoms",
    "readable_name",
    "sample_spec",
]
