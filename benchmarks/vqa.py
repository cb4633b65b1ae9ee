"""Closed (yes/no) questions about images, answered by option scoring, beside what knows no image.

    python benchmarks/vqa.py --data ../shared/data/vqa_rad --generalist nano

Prints accuracy with 95 % intervals over images: of the generalist; of the same questions without their image;
of the training split's most frequent answer; and of a linear model on the words of the question (TF-IDF of
words, pairs and triples, logistic regression of scikit-learn, its strength chosen on validation). Each
question is asked with "yes" first and with "no" first, and the two are averaged.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsco.cases import Case, load_dataset
from gsco.collaboration import ask_closed
from gsco.evaluation.report.wording import number
from gsco.evaluation.statistics import bootstrap_interval, cluster_positions, per_cluster
from gsco.generalist import Generalist, Request, load_generalist

OPTIONS = ("yes", "no")
BATCH = 16


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a VQA dataset")
    parser.add_argument("--generalist", default="nano")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--limit", type=int, help="at most so many questions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every answer here")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    dataset = load_dataset(options.data, task="vqa")
    parts = {
        split: [case for case in dataset.split(split) if said(case) in OPTIONS]
        for split in ("train", "val", "test")
    }
    cases = parts[options.split][: options.limit]
    truth = np.asarray([OPTIONS.index(said(case)) for case in cases])
    clusters = [case.cluster for case in cases]
    model = load_generalist(options.generalist)
    images = len({str(case.image) for case in cases})
    print(
        f"{dataset.name}, {options.split}: {len(cases)} yes/no questions about {images} images, {model.name}"
    )
    asked = {seen: probability_of_yes(model, cases, seen=seen) for seen in (True, False)}
    frequent = Counter(said(case) for case in parts["train"]).most_common(1)[0][0]
    rows = {
        "generalist": asked[True] < 0.5,
        "generalist, image withheld": asked[False] < 0.5,
        "words of the question": words(parts["train"], parts["val"], cases),
        f"always {frequent!r}": np.full(len(cases), OPTIONS.index(frequent)),
    }
    for name, answers in rows.items():
        right = np.asarray(answers, dtype=np.int64) == truth
        print(f"  {name:28}{accuracy(right, clusters)}  {int(right.sum())}/{len(truth)}")
    if options.json:
        lines = [
            {"id": case.id, "reference": said(case), "yes": float(p), "yes_without_image": float(q)}
            for case, p, q in zip(cases, asked[True], asked[False], strict=True)
        ]
        options.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


def accuracy(right: np.ndarray, clusters: Sequence[str]) -> str:
    """The share of answers (n,) that are right, with its interval over clusters (n,)."""
    positions, n = cluster_positions(clusters)
    each = np.stack([right, np.ones(len(right))], axis=1)
    found = bootstrap_interval(
        per_cluster(each, positions, n), lambda sums: np.asarray(sums[:, 0] / sums[:, 1])
    )
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def said(case: Case) -> str:
    """The reference answer as an option would read."""
    return (case.answer or "").strip().lower()


def probability_of_yes(model: Generalist, cases: list[Case], *, seen: bool) -> np.ndarray:
    """Mean over both orders of the options, shape (n,)."""
    requests = []
    for case in cases:
        for order in (OPTIONS, OPTIONS[::-1]):
            prompt = ask_closed(case.question or "", order)
            requests.append(Request(prompt.text, case.image if seen else None, prompt.choices))
    scores = []
    for start in range(0, len(requests), 2 * BATCH):
        scores += model.score_options(requests[start : start + 2 * BATCH])
    yes = [
        float(score.probabilities[request.choices.index("yes")])
        for request, score in zip(requests, scores, strict=True)
    ]
    return np.asarray(np.asarray(yes).reshape(-1, 2).mean(axis=1))


def words(train: list[Case], val: list[Case], cases: list[Case]) -> np.ndarray:
    """Answers of a linear model that reads the question alone, as positions in `OPTIONS`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    turn = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True)
    seen = turn.fit_transform([case.question or "" for case in train])
    labels = [OPTIONS.index(said(case)) for case in train]
    best, chosen = -1.0, None
    for strength in (0.1, 1.0, 10.0, 100.0):
        model = LogisticRegression(C=strength, max_iter=2000).fit(seen, labels)
        right = model.score(
            turn.transform([c.question or "" for c in val]), [OPTIONS.index(said(c)) for c in val]
        )
        if right > best:
            best, chosen = right, model
    assert chosen is not None
    return np.asarray(chosen.predict(turn.transform([case.question or "" for case in cases])))


if __name__ == "__main__":
    main()
