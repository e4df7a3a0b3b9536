"""Pictures that show their own number. NumPy alone, because the oracle's environment reads them too."""

import numpy as np

BITS = 12


def picture(number: int, size: int = 96) -> np.ndarray:
    """uint8 [size, size, 3]: the bits of `number` as a 4 x 3 board of light and dark fields on a slope."""
    board = np.array([(number >> bit) & 1 for bit in range(BITS)]).reshape(3, 4)
    fields = np.kron(board, np.ones((size // 3, size // 4)))
    made = np.full((size, size, 3), 40, np.uint8)
    made[: fields.shape[0], : fields.shape[1]] += (fields[..., None] * 150).astype(np.uint8)
    return made


def number_in(frame: np.ndarray) -> int:
    """The number that `picture` drew."""
    height, width = frame.shape[0] // 3, frame.shape[1] // 4
    means = [frame[row * height : (row + 1) * height, column * width : (column + 1) * width].mean() for row in range(3) for column in range(4)]
    return sum(int(mean > 115) << bit for bit, mean in enumerate(means))
