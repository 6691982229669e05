"""A window for live pictures, on OpenCV."""

from __future__ import annotations

import numpy as np

from sam2long.errors import ConfigError
from sam2long.extras import require

END_KEYS = (ord("q"), 27)  # 27: Escape


class Window:
    """Opens at once, so that a machine without a display says so before anything slow.

    Raises:
        ConfigError: no OpenCV with windows, or no display.
    """

    def __init__(self, title: str) -> None:
        self._cv2 = require("cv2", "live", "a window")
        self._title = title
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL)
        except self._cv2.error:
            raise ConfigError(
                "no window can be opened: there is no display, or this OpenCV is built without windows "
                '(pip install "sam2long[live]" in place of opencv-python-headless); record with --out instead'
            ) from None

    def draw(self, picture: np.ndarray, rate: float, dropped: int) -> bool:
        """Show a frame [H, W, 3] RGB; False when the user wants to end."""
        cv2 = self._cv2
        shown = np.ascontiguousarray(picture[:, :, ::-1])
        text = f"{rate:.1f} frames/s, {dropped} dropped (q ends)"
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(shown, text, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, width, cv2.LINE_AA)
        cv2.imshow(self._title, shown)
        key = cv2.waitKey(1) & 0xFF
        return key not in END_KEYS and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        self._cv2.destroyAllWindows()
