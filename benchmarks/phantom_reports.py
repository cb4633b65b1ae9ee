"""Reports that no radiologist wrote: a small grammar that a label is put into, to teach a writer its trade.

Breast lesions are described in the terms of BI-RADS (ACR, 5th edition). No side and no place is said, since
none is known of the images that are to be reported.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

Pieces = tuple[tuple[str, ...], ...]
Grammar = Mapping[str, tuple[Pieces, tuple[str, ...]]]
"""Of each label: pieces of the findings, one of each in turn, and impressions."""

_ABSENT: Pieces = (
    ("No pleural effusion is seen.", "There is no pleural fluid.", "Pleural effusion is absent."),
    ("There is no pneumothorax.", "No pneumothorax is seen.", "No pleural line is visible."),
    ("No lung nodule is seen.", "There is no nodule.", "A nodule is not seen."),
    ("The heart size is normal.", "Heart size is within normal limits.", "The heart is not enlarged."),
    ("The bones are intact.", "No fracture is seen.", "The visible bones are unremarkable."),
)
_CHEST: Grammar = {
    "no finding": (
        (
            ("The lungs are clear.", "Both lungs are well expanded and clear.", "The lung fields are clear."),
            (
                "",
                " The vessels have an even course.",
                " The mediastinum is unremarkable.",
                " The hila are normal.",
            ),
        ),
        (
            "No finding.",
            "Normal chest radiograph.",
            "No acute abnormality.",
            "Normal chest X-ray, no finding.",
            "No finding, the chest is normal.",
        ),
    ),
    "pneumonia": (
        (
            ("There is", "The image shows", "One sees"),
            (" a patchy", " a hazy", " an ill-defined", " a confluent"),
            (" opacity", " airspace opacity", " consolidation", " infiltrate"),
            (" in the lung", " with air bronchograms", " with blurred vessels", " of the lung"),
            (
                ", typical of infection.",
                ".",
                ", in keeping with an infiltrate.",
                ", denser towards its middle.",
            ),
        ),
        (
            "Pneumonia.",
            "Findings of pneumonia.",
            "The opacity is a pneumonia.",
            "Pneumonia, an infection of the lung.",
            "Infiltrate that is a pneumonia.",
        ),
    ),
}

_BREAST: Grammar = {
    "benign": (
        (
            ("An oval", "A round", "A gently lobulated", "An ovoid"),
            (" circumscribed", " well-defined", " smooth-edged"),
            (" hypoechoic", " isoechoic", " anechoic", " homogeneous"),
            (" mass is seen", " lesion is seen", " mass is present", " lesion stands out"),
            (", wider than tall", ", parallel to the skin", ", with its long axis along the skin", ""),
            (" and with posterior enhancement.", " and with a thin capsule.", ".", " without shadowing."),
        ),
        (
            "Benign mass.",
            "Benign lesion.",
            "Benign lesion, such as a fibroadenoma.",
            "Benign, probably a cyst.",
        ),
    ),
    "malignant": (
        (
            ("An irregular", "A spiculated", "An ill-defined", "A jagged"),
            (" hypoechoic", " heterogeneous", " markedly hypoechoic", " dark"),
            (" mass is seen", " lesion is seen", " mass is present", " lesion stands out"),
            (" with angular margins", " with indistinct margins", " with microlobulated margins", ""),
            (", taller than wide", ", not parallel to the skin", ", across the tissue layers", ""),
            (
                " and with posterior shadowing.",
                " and with an echogenic halo.",
                ".",
                " with distorted tissue.",
            ),
        ),
        (
            "Malignant mass.",
            "Malignant lesion.",
            "Suspicious mass, malignant.",
            "Malignant lesion, a carcinoma.",
        ),
    ),
    "normal": (
        (
            ("Fat and fibroglandular tissue", "The breast tissue", "The layers of the breast"),
            (" lie in regular layers.", " look regular.", " have an even texture.", " are undisturbed."),
            (
                " No mass is seen.",
                " There is no lesion.",
                " No focal lesion is present.",
                " No mass, no cyst.",
            ),
            ("", " There is no shadowing.", " No shadowing is seen.", " The ducts are not widened."),
        ),
        ("Normal breast tissue.", "Normal ultrasound of the breast.", "Normal, no abnormality.", "Normal."),
    ),
}
GRAMMARS: Mapping[str, Grammar] = {"chest X-ray": _CHEST, "breast ultrasound": _BREAST}


def write_phantom_report(modality: str, label: str, rng: random.Random) -> str:
    """Both parts of a report, under their headings; KeyError for what the grammar does not know."""
    pieces, impressions = GRAMMARS[modality][label]
    said = ["".join(rng.choice(piece) for piece in pieces)]
    if modality == "chest X-ray":
        absent = [rng.choice(wordings) for wordings in _ABSENT]
        said += rng.sample(absent, rng.randint(1, 4))
    return f"Findings: {' '.join(said)}\nImpression: {rng.choice(impressions)}"
