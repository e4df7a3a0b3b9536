"""A contact sheet: one row of small frames per clip, as one JPEG inside markdown, small enough for the Dagster UI."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

LIMIT_BYTES = 150_000
LABEL_PX = 12


def contact_sheet(clips: list[tuple[str, np.ndarray]], columns: int = 2) -> str:
    """Markdown with a data URI of less than 200 kB. clips: (label, frames uint8 [k, h, w, 3]); at least one."""
    strips = [(label, np.concatenate(list(frames), axis=1)) for label, frames in clips]
    width = max(strip.shape[1] for _, strip in strips)
    height = max(strip.shape[0] for _, strip in strips) + LABEL_PX
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(strips)), height * rows), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (label, strip) in enumerate(strips):
        corner = (number % columns * width, number // columns * height)
        pen.text((corner[0] + 2, corner[1]), label, fill="black")
        sheet.paste(Image.fromarray(strip), (corner[0], corner[1] + LABEL_PX))
    return f"![kept and packed clips](data:image/jpeg;base64,{base64.b64encode(_small_jpeg(sheet)).decode()})"


def _small_jpeg(picture: Image.Image) -> bytes:
    """Lower quality, then size, until it fits."""
    for quality in (80, 60, 40):
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=quality)
        if sink.tell() <= LIMIT_BYTES:
            return sink.getvalue()
    return _small_jpeg(picture.resize((max(1, picture.width // 2), max(1, picture.height // 2))))
