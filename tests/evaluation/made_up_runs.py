"""Input of the page as a run would give it, from a seeded simulation."""

from __future__ import annotations

import io
import re
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from gsco.evaluation.summary import summarise

NAMES = {"benign": "benign tumour", "malignant": "malignant tumour", "normal": "normal tissue"}
SPECIALISTS = {"linear-probe": 2.2, "knn": 1.8, "fine-tuned": 2.6, "small-cnn": 1.4}
GENERALISTS = {"generalist": 1.0, "moed": 2.6, "rad": 2.0, "gsco": 3.2}
PROMPT = (
    "You are a helpful radiologist. The image is a breast ultrasound.\n"
    "Options: A. benign tumour, B. malignant tumour, C. normal tissue.\n"
    "Specialists: linear-probe says {0}; knn says {1}.\nAnswer with exactly one option."
)


@lru_cache
def picture(seed: int, side: int = 100) -> bytes:
    """A grey speckle with a dark oval, encoded as JPEG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    oval = (x / (0.15 + 0.15 * rng.random())) ** 2 + (y / (0.1 + 0.1 * rng.random())) ** 2 < 1
    grey = np.clip(120 + 40 * rng.standard_normal((side, side)) - 80 * oval - 60 * y, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "JPEG", quality=80)
    return out.getvalue()


def made_up_run(n: int = 50, names: dict[str, str] = NAMES, seed: int = 4) -> dict[str, Any]:
    """Input of the page as a run would give it, from a seeded simulation."""
    rng = np.random.default_rng(seed)
    keys = list(names)
    lines: list[dict[str, Any]] = []
    for i in range(n):
        case_id = f"images/{names[keys[0]].split()[0]}_{i:03}.png"
        truth = int(rng.choice(len(keys), p=rng.dirichlet(np.full(len(keys), 60.0))))
        hard = rng.random() < 0.35

        def draw(skill: float, truth: int = truth, hard: bool = hard) -> np.ndarray:
            return rng.dirichlet(0.4 + (0.4 if hard else 1.0) * skill * (np.arange(len(keys)) == truth))

        opinions = {name: draw(skill) for name, skill in SPECIALISTS.items()}
        mean = np.mean(list(opinions.values()), axis=0)
        votes = np.bincount([int(p.argmax()) for p in opinions.values()], minlength=len(keys)) + mean / 10
        neighbours = [
            {
                "case_id": f"images/train_{int(rng.integers(60)):03}.png",
                "similarity": round(0.97 - 0.02 * j, 4),
                "labels": [keys[int(draw(1.5).argmax())]],
                "dataset": "made-up",
                "index_version": "3f9c2a",
            }
            for j in range(10)
        ]
        nearest = np.bincount([keys.index(x["labels"][0]) for x in neighbours], minlength=len(keys))
        evidence = {
            "opinions": [
                {
                    "specialist": name,
                    "probabilities": [round(float(x), 4) for x in p],
                    "reliability": 0.81,
                    "class_reliability": [0.7, 0.8, 0.9][: len(keys)] if len(keys) <= 3 else None,
                    "abstains": bool(p.max() < 0.45),
                }
                for name, p in opinions.items()
            ],
            "neighbours": neighbours,
            "neighbour_reliability": 0.57,
        }
        said = {name: draw(skill) for name, skill in GENERALISTS.items()}
        arms: dict[str, tuple[str, np.ndarray]] = {
            **{name: ("generalist", p) for name, p in said.items()},
            "gsco_calibrated": ("pool", (mean * said["gsco"] + 0.02) / (mean * said["gsco"] + 0.02).sum()),
            "best_specialist": ("control", opinions["fine-tuned"]),
            "majority_vote": ("control", votes),
            "mean_probability": ("control", mean),
            "neighbour_vote": ("control", nearest.astype(float)),
            **{f"specialist:{name}": ("specialist", p) for name, p in opinions.items()},
        }
        for arm, (kind, p) in arms.items():
            unread = arm == "generalist" and i % 17 == 3
            scored = arm not in ("majority_vote", "neighbour_vote")
            prediction = keys[int(p.argmax())]
            lines.append(
                {
                    "schema": 1,
                    "case_id": case_id,
                    "cluster": f"cluster-{i // 2}",
                    "arm": arm,
                    "kind": kind,
                    "split": "test",
                    "reference": keys[truth],
                    "prediction": None if unread else prediction,
                    "probabilities": dict(zip(keys, map(float, p), strict=True))
                    if scored and not unread
                    else None,
                    "uncalibrated": dict(zip(keys, map(float, p**3 / (p**3).sum()), strict=True))
                    if arm == "gsco"
                    else None,
                    "prompt": PROMPT.format(prediction, prediction) if kind == "generalist" else None,
                    "raw": ("hm, hard to say" if unread else names[prediction])
                    if kind == "generalist"
                    else None,
                    "template": "evidence" if kind == "generalist" else None,
                    "evidence": evidence if kind == "generalist" else None,
                    "image": case_id,
                }
            )
            if kind == "pool":
                inside = [key for key, share in zip(keys, p, strict=True) if share >= 0.2]
                lines[-1] |= {"label_set": inside or [prediction], "abstains": bool(p.max() < 0.6)}
    metrics = summarise(
        lines,
        dataset="made-up",
        task="diagnosis",
        options=[{"key": key, "name": name} for key, name in names.items()],
        seed=1,
        n_resamples=300,
        n_shuffles=999,
    )
    ids = {x["case_id"] for line in lines if line["evidence"] for x in line["evidence"]["neighbours"]}
    return {
        "metrics": metrics,
        "lines": lines,
        "config": {
            "data": "made-up",
            "seed": 1,
            "arms": ["generalist", "gsco"],
            "neighbours": 10,
            "mode": "score",
        },
        "environment": {
            "python": "3.11",
            "cpu": "made-up processor",
            "packages": {"numpy": "2.4", "torch": None},
        },
        "extras": {
            "modality": "breast ultrasound",
            "synthetic": True,
            "specialists": [
                {
                    "name": name,
                    "reliability": 0.7 + skill / 20,
                    "description": "frozen features",
                    "epochs": 12,
                }
                for name, skill in SPECIALISTS.items()
            ],
            "best_specialist": "fine-tuned",
            "generalist": {"name": "scripted", "fingerprint": "ab12cd34"},
            "index": {"cases": 500, "version": "3f9c2a", "backbone": "efficientnet-lite0"},
            "leakage": ["2 near-duplicates of test cases were left out of the index"],
            "card": {"licence": "CC BY 4.0", "source": "made up for this test"},
            "calibration": {
                "schema": 1,
                "arms": {"gsco": {"n": 48, "temperature": 1.4321}},
            },
            "pool": {
                "schema": 1,
                "generalist_arm": "generalist",
                "n": 48,
                "weights": {
                    **{f"specialist:{name}": skill / 8 for name, skill in SPECIALISTS.items()},
                    "neighbour_vote": 0.0,
                    "generalist": 0.31,
                },
                "sets": {"coverage": 0.9, "threshold": 0.2, "n": 48},
                "abstains_below": 0.6,
                "answered": 0.8,
            },
            "skipped": ["images/broken_7.png: is truncated"],
            "images": {case_id: case_id for case_id in ids},
        },
        "thumbnail": lambda ref: picture(int(re.sub(r"\D", "", ref) or 0)),
    }
