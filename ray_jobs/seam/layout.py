"""Where everything lies in the store. The one place that spells a key."""

from ray_jobs.seam.store import Store

UNPARTITIONED = "all"


def pointer_prefix(asset: str, day: str) -> str:
    return f"partitions/{asset}/{day}"


def pointer(asset: str, day: str, generation: str) -> str:
    """partitions/<asset>/<day>/<generation>.json: immutable, the highest generation counts."""
    return f"{pointer_prefix(asset, day)}/{generation}.json"


def plan(base: str) -> str:
    return f"attempts/{base}/plan.json"


def attempt_prefix(base: str, number: int) -> str:
    return f"attempts/{base}/a{number}"


def attempt(base: str, number: int) -> str:
    return f"{attempt_prefix(base, number)}/attempt.json"


def ended(base: str, number: int) -> str:
    return f"{attempt_prefix(base, number)}/ended.json"


def submitted(base: str, number: int) -> str:
    """The uid of the job that was created for this attempt."""
    return f"{attempt_prefix(base, number)}/submitted.json"


def code(sha256: str) -> str:
    """The project's code as an archive, for clusters that have no checkout of it."""
    return f"code/{sha256}/flywheel.zip"


def ledger_prefix(stage: str, version: str, day: str) -> str:
    return f"ledger/{stage}@{version}/{day}"


def episode_prefix(episode_id: str) -> str:
    """The normalised episode: what ingest extracted once, so that nothing later reads an upload again."""
    return f"episodes/{episode_id[:2]}/{episode_id}"


def dataset_prefix(day: str, content_hash: str) -> str:
    return f"datasets/{day}-{content_hash}"


def receipts_prefix(manifest_sha256: str) -> str:
    """In a store that datasets are copied to: what of this dataset is proven to be there."""
    return f"receipts/{manifest_sha256}"


def model_prefix(content_hash: str) -> str:
    return f"models/{content_hash}"


def generations(store: Store, asset: str, day: str) -> list[str]:
    """The generations published for one day, lowest first."""
    prefix = pointer_prefix(asset, day) + "/"
    names = (entry.key.removeprefix(prefix) for entry in store.list(prefix))
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json") and "/" not in name)
