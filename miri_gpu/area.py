"""Areas of a frame: what blocks of ramps are cut to."""

from typing import NamedTuple, Self

from miri_gpu.detector import N_AMPLIFIERS, N_COLS, N_ROWS

ALL_ROWS = slice(0, N_ROWS)
ALL_COLUMNS = slice(0, N_COLS)


class Area(NamedTuple):
    """Some rows and columns, counted from the first of the frame, or from those of another area.

    An index of the last two axes of an array: `array[..., *area]`.
    """

    rows: slice = ALL_ROWS
    columns: slice = ALL_COLUMNS

    @classmethod
    def of_shape(cls, shape: tuple[int, int], row_start: int = 0, col_start: int = 0) -> Self:
        """So many rows and columns, from one of each on."""
        n_rows, n_cols = shape
        return cls(slice(row_start, row_start + n_rows), slice(col_start, col_start + n_cols))

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def grown(self, n_pixels: int) -> Self:
        """With a halo of so many rows and at least as many columns around it, within the frame.

        Its columns are whole rounds of the amplifiers, which some steps take together.
        """
        start = (self.columns.start - n_pixels) // N_AMPLIFIERS * N_AMPLIFIERS
        stop = -(-(self.columns.stop + n_pixels) // N_AMPLIFIERS) * N_AMPLIFIERS
        columns = slice(max(start, 0), min(stop, N_COLS))
        return type(self)(grown(self.rows, n_pixels), columns)

    def within(self, outer: Self) -> Self:
        """Counted from the first row and column of an area around it."""
        return type(self)(within(self.rows, outer.rows), within(self.columns, outer.columns))


def grown(rows: slice, n_halo: int) -> slice:
    """Rows and a halo around them, within the frame."""
    return slice(max(rows.start - n_halo, 0), min(rows.stop + n_halo, N_ROWS))


def within(inner: slice, outer: slice) -> slice:
    """Some rows, or columns, counted from the first of others that are around them."""
    return slice(inner.start - outer.start, inner.stop - outer.start)
