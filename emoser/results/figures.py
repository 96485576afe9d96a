"""A matplotlib figure that a notebook displays by itself.

Importing this module imports matplotlib, without pyplot.
"""

import io
import struct

from matplotlib.figure import Figure

PIXELS_PER_INCH = 96  # of a web page


class Picture(Figure):
    """A figure that is displayed once, as the last value of a cell, also without pyplot."""

    def save(self, file: object, **options: object) -> None:
        """Write the figure without margins, on its own paper."""
        self.savefig(file, facecolor=self.get_facecolor(), bbox_inches="tight", **options)  # type: ignore[arg-type]

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The picture, and its width and height on the page."""
        file = io.BytesIO()
        self.save(file, format="png")
        data = file.getvalue()
        width, height = struct.unpack(">II", data[16:24])  # of the header
        scale = PIXELS_PER_INCH / self.dpi
        return data, {"width": round(width * scale), "height": round(height * scale)}
