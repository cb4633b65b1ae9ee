"""What linear readers make of VQA-RAD's yes/no questions: how far what MedDr-nano is made of can reach.

    python benchmarks/vqa_readers.py --data ../shared/data/vqa_rad

A reader is fitted on features that nothing here was trained for: words of the question, pieces of its words,
the states of SmolLM2-135M (nano's language model, before any training of ours) at the end of the question,
and what nano's eye, as it was before training, makes of the image. All are told the part of the body, which
nano is not. Printed for each, with 95 % intervals over images: accuracy on questions of train and validation
by cross-validation, no image in two folds; and on the test split, fitted on train and validation. How
strongly a reader is held back is chosen by cross-validation inside its own training part.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from gsco.cases import Case, load_dataset
from gsco.generalist.nano.assemble import assemble_base, load_base
from gsco.specialists.backbones import load_backbone
from gsco.specialists.features import extract
from vqa import OPTIONS, accuracy, said

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
LAYER = 24
"""Of thirty: the states from which the last layers make the next word."""
Matrix = Any
"""Features, (n, d): dense or sparse, as scikit-learn takes them."""
Turn = Callable[[np.ndarray, np.ndarray], tuple[Matrix, Matrix]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a VQA dataset")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(options.data, task="vqa")
    known, test = (
        [case for split in splits for case in dataset.split(split) if said(case) in OPTIONS]
        for splits in (("train", "val"), ("test",))
    )
    cases = [*known, *test]
    truth = np.asarray([OPTIONS.index(said(case)) for case in cases])
    groups = np.asarray([str(case.cluster) for case in cases])
    texts = np.asarray(
        [f"{case.question} organ{case.extra.get('organ', '')}" for case in cases], dtype=object
    )
    states = states_of(cases)
    eye = np.asarray(extract(load_backbone("embedded"), [case.image for case in cases], cache=None))
    pieces = {"analyzer": "char_wb", "ngram_range": (2, 5)}
    readers: dict[str, Turn] = {
        "words": lambda fit, ask: counted(texts, fit, ask, ngram_range=(1, 3)),
        "pieces of words": lambda fit, ask: counted(texts, fit, ask, **pieces),
        "SmolLM2's states": lambda fit, ask: scaled(states, fit, ask),
        "the image": lambda fit, ask: scaled(eye, fit, ask),
        "pieces and the image": lambda fit, ask: beside(
            counted(texts, fit, ask, **pieces), scaled(eye, fit, ask)
        ),
        "states and the image": lambda fit, ask: scaled(np.concatenate([states, eye], axis=1), fit, ask),
    }
    here, there = np.arange(len(known)), np.arange(len(known), len(cases))
    print(f"{dataset.name}: yes/no questions, {len(here)} of train and validation, {len(there)} of test")
    for name, turn in readers.items():
        folded = np.empty(len(here), dtype=np.int64)
        for fit, ask in folds(groups[here], 10):
            folded[ask] = read(turn, truth, groups, fit, ask)
        asked = read(turn, truth, groups, here, there)
        print(
            f"  {name:22} {accuracy(folded == truth[here], list(groups[here]))}  "
            f"test {accuracy(asked == truth[there], list(groups[there]))}",
            flush=True,
        )


def states_of(cases: list[Case]) -> np.ndarray:
    """SmolLM2's states after reading each question, float32 (n, 576)."""
    model, tokenizer = load_base(assemble_base())
    language = model.model.language_model
    out = []
    for case in cases:
        organ = str(case.extra.get("organ", "")).lower()
        text = f"A radiology image of the {organ}. Question: {case.question} Answer (yes or no):"
        with torch.inference_mode():
            found = language(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        out.append(found.hidden_states[LAYER][0, -1].float().numpy())
    return np.stack(out)


def folds(groups: np.ndarray, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions to fit on and to ask, no group in both."""
    yield from GroupKFold(n).split(groups, groups=groups)


def read(turn: Turn, truth: np.ndarray, groups: np.ndarray, fit: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Answers to the questions at `ask` of a reader fitted at `fit`."""
    right = dict.fromkeys(STRENGTHS, 0)
    for inner, left in folds(groups[fit], 5):
        seen, asked = turn(fit[inner], fit[left])
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=1000).fit(seen, truth[fit[inner]])
            right[strength] += int((model.predict(asked) == truth[fit[left]]).sum())
    best = max(STRENGTHS, key=lambda strength: right[strength])
    seen, asked = turn(fit, ask)
    return np.asarray(LogisticRegression(C=best, max_iter=1000).fit(seen, truth[fit]).predict(asked))


def counted(texts: np.ndarray, fit: np.ndarray, ask: np.ndarray, **how: object) -> tuple[Matrix, Matrix]:
    """TF-IDF of the texts."""
    turn = TfidfVectorizer(sublinear_tf=True, **how)
    return turn.fit_transform(texts[fit]), turn.transform(texts[ask])


def scaled(features: np.ndarray, fit: np.ndarray, ask: np.ndarray) -> tuple[Matrix, Matrix]:
    """Features of mean 0 and variance 1 over what is fitted on, divided by the root of their number."""
    turn = StandardScaler().fit(features[fit])
    size = np.sqrt(features.shape[1])
    return turn.transform(features[fit]) / size, turn.transform(features[ask]) / size


def beside(*parts: tuple[Matrix, Matrix]) -> tuple[Matrix, Matrix]:
    """The parts' features side by side."""
    fitted, asked = (hstack([csr_matrix(part[side]) for part in parts], format="csr") for side in (0, 1))
    return fitted, asked


if __name__ == "__main__":
    main()
