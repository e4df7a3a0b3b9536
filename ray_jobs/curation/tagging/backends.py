"""Who answers: vLLM inside the job through Ray Data LLM, or a server that speaks OpenAI's API. Only the profile differs between GPU and CPU."""

import os
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import requests
from urllib3.util import Retry

from ray_jobs.curation.tagging.request import http_answer, http_body, vllm_refused, vllm_row
from ray_jobs.seam.configs import CaptionSettings
from ray_jobs.seam.errors import DataError, UserError

# Both see at most 16 pictures a row and decode JSON without loose whitespace, in which a model can lose itself.
ENGINE: dict[str, Any] = {
    "load_format": "safetensors",  # never a pickle
    "limit_mm_per_prompt": {"image": 16},
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
PROFILES: dict[str, dict[str, Any]] = {
    "gpu": {"engine_kwargs": {"max_model_len": 8192}, "batch_size": 32},
    "cpu": {
        "engine_kwargs": {"dtype": "float32", "max_model_len": 4096, "max_num_seqs": 4, "enforce_eager": True},
        "batch_size": 4,
        "placement_group_config": {"bundle_per_worker": {"CPU": 1}},  # without one Ray asks for a GPU
    },
}
CONTENT = (400, 413, 422)  # the server understood, and this row is the reason
PATIENCE = Retry(total=4, backoff_factor=0.5, status_forcelist=(429, 502, 503, 504), allowed_methods=("POST",), raise_on_status=False)
TIMEOUT_S = 120.0


def vllm_environment(settings: CaptionSettings) -> dict[str, str]:
    """What must be set in the engine's processes."""
    offline = {"HF_HUB_OFFLINE": "1"} if os.path.isdir(settings.model) else {}
    return {**offline, **({"VLLM_CPU_KVCACHE_SPACE": "1"} if settings.profile == "cpu" else {})}


def engine_config(settings: CaptionSettings) -> dict[str, Any]:
    """Arguments of vLLMEngineProcessorConfig: rows are whole prompts, so that no stage but the engine's runs, and a bad row stays alone."""
    profile = PROFILES[settings.profile]
    pinned = {"revision": settings.revision} if settings.revision else {}
    return {
        **profile,
        "model_source": settings.model,
        "engine_kwargs": {**ENGINE, **profile["engine_kwargs"], **pinned, **settings.engine},
        "concurrency": settings.workers,
        "should_continue_on_error": True,
        "runtime_env": {"env_vars": vllm_environment(settings)},
        **{f"{name}_stage": False for name in ("prepare_multimodal", "chat_template", "tokenize", "detokenize")},
    }


def through_vllm(data: Any, settings: CaptionSettings) -> Any:
    """Rows of `captions.show` -> rows with `answer`, `error` and `seconds`. Raises UserError where vLLM is not installed."""
    if find_spec("vllm") is None:  # asked here: an actor that lacks it only says so in the traceback of a dead actor
        raise UserError("captions by vLLM need it installed where the job runs: pip install 'robot-flywheel[vllm]', or backend: http")
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    processor = build_processor(vLLMEngineProcessorConfig(**engine_config(settings)), preprocess=partial(_to_vllm, settings=settings), postprocess=_said)
    return processor(data).map(_told)


def _to_vllm(row: dict[str, Any], settings: CaptionSettings) -> dict[str, Any]:
    return vllm_refused(row["error"]) if row["error"] else vllm_row(row["text"], unpacked(row), settings)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    return {"episode_id": row["episode_id"], "answer": row["generated_text"], "seconds": row["time_taken_llm"]}


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Rows that failed come past the postprocess with the engine's columns: only these five go on."""
    error = row.get("__inference_error__") or ""
    answer = "" if error else row["answer"]
    # Guided decoding cannot end before a document is whole or the tokens are spent: nothing at all is the engine's failure, not the episode's
    failed = "" if error or answer else "vLLM gave an empty answer: read the engine's log, it may not have understood the schema"
    return {"episode_id": row["episode_id"], "answer": answer, "error": error, "failed": failed, "seconds": float(row.get("seconds") or 0.0)}


def through_http(data: Any, settings: CaptionSettings) -> Any:
    """The same by a server. `failed` says what is no fact about the episode: the server's absence, a wrong key."""
    import ray

    return data.map(partial(ask, settings=settings), compute=ray.data.TaskPoolStrategy(size=settings.workers), num_cpus=0.25)


def ask(row: dict[str, Any], settings: CaptionSettings) -> dict[str, Any]:
    """One request, patient with a busy server."""
    made = {"episode_id": row["episode_id"], "answer": "", "error": row["error"], "failed": "", "seconds": 0.0}
    if row["error"]:
        return made
    key = os.environ.get(settings.credentials or "", "")
    if settings.credentials and not key:
        return {**made, "failed": f"the caption server wants a key in {settings.credentials}, and it is not set where the job runs"}
    with requests.Session() as session:
        session.mount(settings.url or "", requests.adapters.HTTPAdapter(max_retries=PATIENCE))
        try:
            response = session.post(
                f"{(settings.url or '').rstrip('/')}/chat/completions",
                json=http_body(row["text"], unpacked(row), settings),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=TIMEOUT_S,
            )
        except requests.RequestException as error:
            return {**made, "failed": f"the caption server {settings.url} does not answer: {type(error).__name__}"}
    made["seconds"] = response.elapsed.total_seconds()
    if response.status_code in CONTENT:
        return {**made, "error": f"the server refused it ({response.status_code}): {' '.join(response.text.split())[:200]}"}
    if not response.ok:
        return {**made, "failed": f"the caption server {settings.url} says {response.status_code}: {' '.join(response.text.split())[:200]}"}
    try:
        return {**made, "answer": http_answer(response.json())}
    except (DataError, requests.JSONDecodeError) as error:
        return {**made, "error": str(error)}


def unpacked(row: dict[str, Any]) -> list[np.ndarray]:
    """The frames of a row of `captions.show`, u8 [h, w, 3] each."""
    return list(np.frombuffer(row["frames"], np.uint8).reshape(row["shape"]))
