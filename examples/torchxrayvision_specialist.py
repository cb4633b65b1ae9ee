"""A chest radiograph network of TorchXRayVision as a specialist, and as a plugin.

TorchXRayVision (Cohen et al., 2022) answers with a logit for each of 18 pathologies. Here each option of a
dataset is one or several of these, or none of them ("no finding"), and the odds become probabilities that
a temperature, fitted on validation cases, calibrates.

    python examples/torchxrayvision_specialist.py --data cxr_nih --weights xrv.safetensors --out xrv

Its published weights are pickled modules, which run code when they are read. So the weights are taken from
a file of tensors; where you trust the published file, make one once:

    import torchxrayvision as xrv
    from safetensors.torch import save_file
    save_file(xrv.models.DenseNet(weights="densenet121-res224-all").state_dict(), "xrv.safetensors")

As a plugin, a package names the function and the class as entry points (docs/specialists.md, Plugins).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torchxrayvision as xrv
from numpy.typing import NDArray

from gsco.cases import ImageRef, load_dataset, load_image
from gsco.embedded import cache_home
from gsco.errors import ModelError
from gsco.specialists.registry import training_job
from gsco.specialists.trained import Fields, Tensors, TrainedSpecialist, TrainingJob

CXR_NIH = {"no_finding": (), "pneumonia": ("Pneumonia", "Consolidation", "Infiltration")}
"""Option → pathologies of TorchXRayVision; none for the option that means none of them."""
_SIDE = 224


class XrvSpecialist(TrainedSpecialist):
    """A DenseNet-121 of TorchXRayVision.

    Args:
        state: its state dict; random weights when None, which is good for tests only.
        pathologies: option key → names of pathologies, see `CXR_NIH`.
    """

    kind: ClassVar[str] = "torchxrayvision"

    def __init__(
        self,
        *,
        pathologies: Mapping[str, Sequence[str]],
        state: Mapping[str, torch.Tensor] | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = xrv.models.DenseNet(weights=None)
        if state is not None:
            self.network.load_state_dict(state)
        self.network.eval()
        self.pathologies = {key: tuple(pathologies[key]) for key in self.options}
        unknown = {name for names in self.pathologies.values() for name in names} - set(self.network.targets)
        if unknown:
            raise ModelError(f"TorchXRayVision knows no {', '.join(sorted(unknown))}")

    def logits(self, images: Sequence[ImageRef]) -> NDArray[np.float64]:
        """Log odds of each option against none of the pathologies, (N, options)."""
        column = {name: i for i, name in enumerate(self.network.targets)}
        out = np.zeros((len(images), len(self.options)))
        for row, image in enumerate(images):  # each alone, so that no number depends on its neighbours
            grey = load_image(image).convert("L").resize((_SIDE, _SIDE))
            pixels = xrv.datasets.normalize(np.asarray(grey, dtype=np.float32), 255)  # to [-1024, 1024]
            with torch.inference_mode():
                said = self.network(torch.from_numpy(pixels)[None, None])[0].numpy()
            for option, key in enumerate(self.options):
                names = self.pathologies[key]
                out[row, option] = max((float(said[column[name]]) for name in names), default=0.0)
        return out

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {key: value.numpy() for key, value in self.network.state_dict().items()}

    def _config(self) -> dict[str, Any]:
        return {"pathologies": {key: list(names) for key, names in self.pathologies.items()}}

    @classmethod
    def _restore(
        cls, base: Fields, config: Fields, tensors: Tensors, cache: Path | None
    ) -> TrainedSpecialist:
        state = {key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}
        return cls(**base, **config, state=state)


def torchxrayvision(job: TrainingJob, name: str, recipe: str, backbone: str | None) -> TrainedSpecialist:
    """TorchXRayVision's DenseNet-121, calibrated on validation; `backbone` is a file of weights."""
    from safetensors.torch import load_file

    made = XrvSpecialist(
        name=name,
        recipe=recipe,
        options=job.options,
        pathologies=CXR_NIH,
        state=None if backbone is None else load_file(backbone),
    )
    made.calibrate(job)
    return made


def main() -> None:
    """Calibrate on a dataset's validation cases and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    job = training_job(load_dataset(given.data), cache=cache_home())
    made = torchxrayvision(job, "torchxrayvision", "torchxrayvision", str(given.weights))
    made.save_pretrained(given.out)
    print(made.val_metrics)


if __name__ == "__main__":
    main()
