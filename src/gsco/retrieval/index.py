"""`CaseIndex`: the stored, versioned embeddings of training cases."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsco.cases import Case
from gsco.errors import LeakageError, ModelError
from gsco.retrieval.nearest import ENGINES, Engine, nearest
from gsco.retrieval.neighbour import Neighbour

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index keeps of one case.

    Attributes:
        id: the case's id in its dataset.
        labels: its reference option keys.
        units: hashes of the patient and group it belongs to (ids themselves are not stored).
    """

    id: str
    labels: tuple[str, ...]
    units: tuple[str, ...] = ()


class CaseIndex:
    """Embeddings of training cases, searched exactly by cosine similarity.

    Make one with `CaseIndex.build` or `CaseIndex.from_pretrained`. It never changes: `without` gives
    a new one.

    Attributes:
        dataset: name of the dataset that was indexed.
        encoder: fingerprint of what made the embeddings (weights and transform).
        pooled: whether the embeddings are pooled vectors, or flattened un-pooled maps as the reference
            uses them.
        engine: what proposes candidates, ``faiss`` or ``numpy``; the answers are the same.
        embeddings: (n, d) float32, rows of unit length; read-only, memory-mapped after loading.
        entries: what is known of each row, in the same order.
        version: content hash: 16 hexadecimal digits that change with embeddings, cases or encoder.
    """

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        entries: Sequence[Entry],
        *,
        dataset: str,
        encoder: str,
        pooled: bool,
        engine: Engine = "faiss",
        version: str | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
        self.dataset = dataset
        self.encoder = encoder
        self.pooled = pooled
        self.engine: Engine = engine
        self.entries = tuple(entries)
        self.embeddings = embeddings.view()
        self.embeddings.flags.writeable = False
        self.version = version or content_hash(embeddings, self.entries, dataset, encoder, pooled)
        self._position = {entry.id: i for i, entry in enumerate(self.entries)}
        self._members: dict[str, list[int]] = defaultdict(list)
        for i, entry in enumerate(self.entries):
            for unit in entry.units:
                self._members[unit].append(i)

    @classmethod
    def build(
        cls,
        embeddings: NDArray[np.floating],
        cases: Sequence[Case],
        *,
        dataset: str,
        encoder: str,
        pooled: bool = True,
        engine: Engine = "faiss",
    ) -> CaseIndex:
        """Index training cases.

        Args:
            embeddings: (n, d) one vector per case, or (n, …) un-pooled maps, which are flattened.
            cases: the cases, in the same order; all of the training split.
            dataset: name of their dataset.
            encoder: fingerprint of weights and transform; `from_pretrained` can insist on it.
            pooled: whether these are pooled vectors.
            engine: ``faiss`` or ``numpy``.

        Raises:
            LeakageError: a case is not of the training split.
            ModelError: an embedding is not finite or has length zero.
            ValueError: counts differ, there is no case, or an id stands twice.
        """
        if embeddings.ndim < 2 or len(embeddings) != len(cases):
            raise ValueError(f"embeddings of shape {embeddings.shape} do not fit {len(cases)} cases")
        if not cases:
            raise ValueError("an index needs at least one case")
        for case in cases:
            if case.split != "train":
                raise LeakageError(
                    f"case {case.id} of split {case.split!r} must not be indexed",
                    where=dataset,
                    remedy="Index training cases only.",
                )
        ids = [case.id for case in cases]
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise ValueError(f"case {twice} stands twice")
        flat = np.ascontiguousarray(embeddings, dtype=np.float32).reshape(len(cases), -1)
        units, bad = normalise(flat)
        if bad:
            raise ModelError(
                f"the embedding of case {ids[bad[0]]} is zero or not finite ({len(bad)} such in all)",
                where=dataset,
                remedy="Check these images, and the weights of the encoder.",
            )
        entries = [Entry(case.id, case.labels, _units(case)) for case in cases]
        return cls(units, entries, dataset=dataset, encoder=encoder, pooled=pooled, engine=engine)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.embeddings.shape[1])

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of the indexed cases, in order."""
        return tuple(entry.id for entry in self.entries)

    def search(
        self,
        queries: NDArray[np.floating],
        k: int = 10,
        *,
        exclude: Sequence[str | None] | None = None,
        exclude_clusters: Sequence[str | Collection[str] | None] | None = None,
    ) -> list[tuple[Neighbour, ...]]:
        """The most similar training cases of each query.

        Args:
            queries: (m, d) or (m, …) embeddings by the same encoder; they need not be normalised.
            k: neighbours wanted, at least 1; fewer come where the index, less what is excluded, has fewer.
            exclude: for each query, the id of a case that must not be found (itself), or None.
            exclude_clusters: for each query, a patient or group (`Case.cluster`), or several, whose cases
                must not be found, or None.

        Returns:
            For each query, its neighbours: most similar first, equal ones in the index's order.

        Raises:
            ValueError: shapes do not fit, k < 1, or a query is zero or not finite.
        """
        units = self._check(queries, k)
        banned = self._banned(len(units), exclude, exclude_clusters)
        found = nearest(units, self.embeddings, k, engine=self.engine, banned=banned)
        return [
            tuple(self._neighbour(p, s) for p, s in zip(positions.tolist(), similarity.tolist(), strict=True))
            for positions, similarity in found
        ]

    def kneighbors(
        self,
        queries: NDArray[np.floating],
        k: int = 10,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Cosine distances and positions, as scikit-learn's ``NearestNeighbors(metric="cosine")`` gives them.

        Args:
            queries: as in `search`.
            k: neighbours wanted; capped to the size of the index.

        Returns:
            Distances 1 - similarity in [0, 2], (m, k) float64, ascending, and positions, (m, k) int64.
        """
        found = nearest(self._check(queries, k), self.embeddings, k, engine=self.engine)
        width = min(k, len(self))
        positions = np.array([p for p, _ in found], dtype=np.int64).reshape(len(found), width)
        similarity = np.array([s for _, s in found], dtype=np.float64).reshape(len(found), width)
        return 1.0 - similarity, positions

    def leave_one_out(self, k: int = 10) -> list[NDArray[np.float64]]:
        """How similar each case is to its neighbours, were it not in the index, nor its patient and group.

        Args:
            k: neighbours wanted, at least 1.

        Returns:
            For each case, in the index's order, up to k cosine similarities, descending.

        Raises:
            ValueError: k < 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 is needed")
        own = [
            np.array(sorted({i, *(j for unit in entry.units for j in self._members[unit])}), dtype=np.int64)
            for i, entry in enumerate(self.entries)
        ]
        found = nearest(self.embeddings, self.embeddings, k, engine=self.engine, banned=own)
        return [similarity for _, similarity in found]

    def without(self, case_ids: Collection[str]) -> CaseIndex:
        """This index less some cases.

        Raises:
            ValueError: a case is not in the index.
            LeakageError: nothing would be left.
        """
        drop = set(case_ids)
        if not drop:
            return self
        unknown = drop - self._position.keys()
        if unknown:
            raise ValueError(f"case {min(unknown)} is not in the index")
        kept = [i for i, entry in enumerate(self.entries) if entry.id not in drop]
        if not kept:
            raise LeakageError(
                f"all {len(self)} cases would be dropped from the index",
                where=self.dataset,
                remedy="Check that training and test images are not the same.",
            )
        return CaseIndex(
            np.ascontiguousarray(self.embeddings[kept]),
            [self.entries[i] for i in kept],
            dataset=self.dataset,
            encoder=self.encoder,
            pooled=self.pooled,
            engine=self.engine,
        )

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json``, ``embeddings.safetensors``, ``cases.jsonl`` and a card.

        Raises:
            StorageError: the folder cannot be written.
        """
        from gsco.retrieval.storage import save_index

        save_index(self, Path(folder))

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        expect_encoder: str | None = None,
        engine: Engine = "faiss",
        verify: bool = True,
    ) -> CaseIndex:
        """Open a stored index; the embeddings stay on disk, mapped into memory.

        Args:
            folder: what `save_pretrained` wrote.
            expect_encoder: refuse an index that another encoder made.
            engine: ``faiss`` or ``numpy``.
            verify: whether to compare the content hash (this reads the file once).

        Raises:
            ModelError: missing, damaged, of a later format, or of another encoder.
        """
        from gsco.retrieval.storage import load_index

        return load_index(Path(folder), expect_encoder=expect_encoder, engine=engine, verify=verify)

    def _neighbour(self, position: int, similarity: float) -> Neighbour:
        entry = self.entries[position]
        return Neighbour(entry.id, similarity, entry.labels, self.dataset, self.version)

    def _check(self, queries: NDArray[np.floating], k: int) -> NDArray[np.float32]:
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 is needed")
        if queries.ndim < 2 or int(np.prod(queries.shape[1:])) != self.dim:
            raise ValueError(f"queries of shape {queries.shape} do not fit an index of dimension {self.dim}")
        units, bad = normalise(
            np.ascontiguousarray(queries, dtype=np.float32).reshape(len(queries), self.dim)
        )
        if bad:
            raise ValueError(f"query {bad[0]} is zero or not finite ({len(bad)} such in all)")
        return units

    def _banned(
        self,
        m: int,
        exclude: Sequence[str | None] | None,
        clusters: Sequence[str | Collection[str] | None] | None,
    ) -> list[NDArray[np.int64]] | None:
        """Positions forbidden to each query."""
        if exclude is None and clusters is None:
            return None
        for given in (exclude, clusters):
            if given is not None and len(given) != m:
                raise ValueError(f"{len(given)} exclusions for {m} queries")
        out = []
        for i in range(m):
            case_id, cluster = exclude[i] if exclude else None, clusters[i] if clusters else None
            names = [cluster] if isinstance(cluster, str) else list(cluster or ())
            positions = {self._position[name] for name in (*names, case_id) if name in self._position}
            for name in names:
                positions.update(self._members.get(_hash(name), ()))
            out.append(np.array(sorted(positions), dtype=np.int64))
        return out


def normalise(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[int]]:
    """Rows scaled to unit length, and the positions of rows that cannot be (zero or not finite)."""
    units = np.empty(vectors.shape, dtype=np.float32)
    bad: list[int] = []
    step = max(1, _BLOCK_BYTES // (8 * vectors.shape[1]))
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            length = np.sqrt((block * block).sum(axis=1))
            units[start : start + step] = block / length[:, None]
        bad.extend((start + np.flatnonzero(~(np.isfinite(length) & (length > 0)))).tolist())
    return units, bad


def content_hash(
    embeddings: NDArray[np.float32], entries: Sequence[Entry], dataset: str, encoder: str, pooled: bool
) -> str:
    """16 hexadecimal digits of SHA-256 over everything that search depends on."""
    digest = hashlib.sha256()
    head = [dataset, encoder, str(pooled), str(embeddings.shape)]
    for text in (*head, *(f"{e.id}\0{'|'.join(e.labels)}\0{'|'.join(e.units)}" for e in entries)):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    digest.update(np.ascontiguousarray(embeddings, dtype="<f4").data)
    return digest.hexdigest()[:16]


def _units(case: Case) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_hash(name) for name in (case.patient_id, case.group) if name))


def _hash(name: str) -> str:
    return hashlib.sha256(f"unit {name}".encode()).hexdigest()[:16]
