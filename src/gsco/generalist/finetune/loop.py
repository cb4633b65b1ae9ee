"""The Trainer of transformers: the loss on answers, own order, a stop where a loss is no number."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback

from gsco.errors import RunError
from gsco.generalist.finetune.encoding import IGNORED
from gsco.generalist.training_files import forget_after
from gsco.progress import Progress

COMPLETE = "complete.json"
"""Written last into a checkpoint: one without it is half a checkpoint."""


class AnswerTrainer(Trainer):
    """Sums the loss over answer tokens and divides by how many a whole step has, over all processes.

    So a step is the same step however it is cut into passes and processes. The language head runs only at
    places that some row of the pass has a label for.
    """

    optimizer: Any

    def __init__(self, *args: Any, **more: Any) -> None:
        # transformers counts the labels of a step only where it believes that a loss function wants to know
        super().__init__(*args, compute_loss_func=lambda *_, **__: None, **more)
        self.model_accepts_loss_kwargs = False
        base = self.accelerator.unwrap_model(self.model).get_base_model()
        self._keeps_logits = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._read: list[str] = []

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """See transformers; keeps the names of the step's records."""
        samples, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._read = [name for sample in samples for name in sample["records"]]
        return samples, count

    def _sum(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Summed negative log-likelihood of the answer tokens of one pass."""
        inputs = {key: value for key, value in inputs.items() if key != "records"}
        targets = inputs.pop("labels")[:, 1:]
        places = (targets != IGNORED).any(0).nonzero().flatten()
        if len(places) == 0:  # a filler: nothing to learn, but the graph of every process stays whole
            places = torch.zeros(1, dtype=torch.long, device=targets.device)
        if self._keeps_logits:
            logits = model(**inputs, logits_to_keep=places).logits
        else:
            logits = model(**inputs).logits[:, places]
        return functional.cross_entropy(
            logits.float().flatten(0, 1), targets[:, places].flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """This process's share of the step's mean loss, times the number of processes, which average it."""
        count = max(float(0 if num_items_in_batch is None else num_items_in_batch), 1.0)
        loss = self._sum(model, inputs) / count * self.accelerator.num_processes
        if not torch.isfinite(loss):
            self._stop(f"the loss is {float(loss.detach())}", inputs["records"])
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):
            self._stop(f"the gradient is {float(norm)}", self._read)
        return norm

    def _stop(self, what: str, names: list[str]) -> None:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise RunError(
            f"{what} at step {self.state.global_step + 1}; records: {shown}",
            where=str(Path(self.args.output_dir).parent),
            remedy="Look at these records, or lower learning_rate; the last checkpoint is from before.",
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss of a held-out answer token, exactly, over all processes."""
        self.model_wrapped.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for inputs in self.get_eval_dataloader():
            inputs = self._prepare_inputs(inputs)
            with torch.no_grad(), self.compute_loss_context_manager():
                total[0] += self._sum(self.model_wrapped, inputs).double()
            total[1] += (inputs["labels"][:, 1:] != IGNORED).sum()
        summed, count = self.accelerator.reduce(total, reduction="sum").tolist()
        metrics = {"eval_loss": summed / max(count, 1.0)}
        self.log(metrics)
        return metrics


class Log(TrainerCallback):
    """Each step, and each evaluation, as a line of a JSON Lines file, and to the caller's progress."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self.path = path
        self.progress = progress
        self._held_out_at = -1
        self._rate = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See `forget_after`."""
        if state.is_world_process_zero:
            forget_after(self.path, state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        """Note the step's rate; under DeepSpeed the trainer logs the next step's."""
        self._rate = float(lr_scheduler.get_last_lr()[0])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write what is known of the step."""
        names = {"loss": "loss", "eval_loss": "held_out_loss", "grad_norm": "grad_norm"}
        kept = {short: float(logs[name]) for name, short in names.items() if name in (logs or {})}
        if not kept or not state.is_world_process_zero:
            return
        if "held_out_loss" in kept:
            if self._held_out_at == state.global_step:  # the last step may be one to evaluate at anyway
                return
            self._held_out_at = state.global_step
        if "loss" in kept:
            kept["learning_rate"] = self._rate
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"step": state.global_step, **kept}) + "\n")
        if self.progress:
            loss = f", loss {kept['loss']:.3f}" if "loss" in kept else ""
            self.progress(f"training{loss}", state.global_step, state.max_steps)


class Seal(TrainerCallback):
    """Marks a checkpoint as whole, after every process has written its part."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait = wait

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the mark."""
        self.wait()
        if state.is_world_process_zero:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE
            path.write_text(json.dumps({"step": state.global_step}))


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    found = [path.parent for path in work.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)
