"""What is wrong with the user's input: one line that names the file or parameter."""


class MiriGpuError(Exception):
    """Base of all errors that the user can mend; the command line prints them and exits with 2."""


class SegmentError(MiriGpuError):
    """A segment that cannot be reduced, or segments that do not belong together."""


class RecipeError(MiriGpuError):
    """A recipe or a setting that is not understood or not allowed."""


class CalibrationError(MiriGpuError):
    """A reference file that is missing, unreadable or unfit."""


class BackendError(MiriGpuError):
    """A backend that was asked for and cannot run here."""


class OutputError(MiriGpuError):
    """An output directory that cannot be written, or that holds what would be replaced."""
