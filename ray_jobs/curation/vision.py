"""The embedding stage with any Hugging Face vision model: the same tracks and landmarks, of what the model sees.

Needs the extra `vision`. A model's own code is never run, and only safetensors are read: weights from elsewhere execute nothing.
"""

from typing import Any

import numpy as np

from ray_jobs.curation.embedding import Layout, first_view, project
from ray_jobs.curation.stage import Partial, Picks, Resources, Segment
from ray_jobs.seam.configs import EmbeddingSettings
from ray_jobs.seam.errors import UserError
from ray_jobs.seam.model import digest


class Vision(Layout):
    """One forward pass of some frames a second; loaded once per worker, on its GPU where it has one."""

    def __init__(self, chosen: EmbeddingSettings) -> None:
        self.chosen = chosen
        self.version = f"vision-1-{digest(chosen.model, chosen.revision, chosen.dtype, chosen.batch)[:8]}"  # where it runs changes no number
        self.picks = Picks(px=chosen.frame_px, fps=chosen.fps)
        self.resources = Resources(num_cpus=chosen.cpus, num_gpus=chosen.gpus, memory=chosen.memory_mb * 1024 * 1024, pool=chosen.workers)

    def setup(self) -> None:
        """Raises UserError where the model cannot be had."""
        try:
            import torch
            from transformers import AutoImageProcessor, AutoModel
        except ImportError as error:
            raise UserError(f"measure.embedding needs the extra `vision` ({error}): pip install '.[vision]'") from error
        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        given: dict[str, Any] = {"revision": self.chosen.revision, "trust_remote_code": False}
        try:
            self.processor: Any = AutoImageProcessor.from_pretrained(self.chosen.model, **given)
            model: Any = AutoModel.from_pretrained(self.chosen.model, dtype=getattr(torch, self.chosen.dtype), use_safetensors=True, **given)
        except (OSError, ValueError) as error:
            told = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise UserError(f"measure.embedding.model {self.chosen.model!r} cannot be loaded: {told}") from error
        self.model = getattr(model, "vision_model", model).to(self.device).eval()  # of a model of pictures and words, the half that sees

    def measure(self, segment: Segment) -> Partial:
        view = first_view(segment)
        if view is None:
            return self._partial(None, project(np.zeros((0, 1), np.float32)))
        size = self.chosen.batch
        seen = [self._embed(view.frames[first : first + size]) for first in range(0, len(view.frames), size)]
        return self._partial(view, project(np.concatenate(seen)))

    def _embed(self, frames: np.ndarray) -> np.ndarray:
        """[n, d] f32 of norm sqrt(d), of frames [n, h, w, 3]. The batch is always full: its size may change the last bits of a product."""
        full = np.concatenate([frames, np.repeat(frames[-1:], self.chosen.batch - len(frames), axis=0)])
        inputs = self.processor(images=list(full), return_tensors="pt")
        with self.torch.inference_mode():
            made = self.model(pixel_values=inputs["pixel_values"].to(self.device, self.model.dtype))
        pooled = getattr(made, "pooler_output", None)
        states = pooled.flatten(1) if pooled is not None else made.last_hidden_state.mean(dim=1)
        values: np.ndarray = states[: len(frames)].float().cpu().numpy()
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9) * np.sqrt(values.shape[1])
