"""The README's code runs as it stands there."""

import re
from pathlib import Path

import numpy as np
import xarray

from miri_gpu.backend import ENVIRONMENT_VARIABLE
from miri_gpu.products import reduce_to_directory

README = Path(__file__).parents[1] / "README.md"


def test_the_code_of_the_readme_runs(observation, tmp_path, monkeypatch, capsys, rng):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "numpy")
    Path("observation").symlink_to(observation.directory)
    reduced = reduce_to_directory(
        observation.segments,
        Path("reduced"),
        references=observation.references,
        save_rates=True,
    )
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    light_curves, choices, from_python, functions = blocks
    names = {}

    exec(light_curves, names)
    assert Path("bands.csv").exists() and Path("white.pdf").exists()
    assert names["depths"].sizes == {"wavelength": 14}

    exec(choices.replace("(3, 4, 5)", "(3,)"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"3 \w+ depth \d+ depth_error \d+ .*", line) for line in lines)

    for number, segment in enumerate(observation.segments, 1):
        from_python = from_python.replace(f"jw..-seg{number:03d}_mirimage_uncal.fits", str(segment))
    from_python = from_python.replace('"faint"', '"bright"')  # which suits the groups there are
    exec(from_python, names)
    xarray.testing.assert_equal(names["dataset"], reduced)

    arrays = {
        "data": np.cumsum(rng.normal(100, 5, (2, 6, 4, 5)), axis=1, dtype=np.float32),
        "groupdq": np.zeros((2, 6, 4, 5), np.uint8),
        "pixeldq": np.zeros((4, 5), np.uint32),
        "read_noise": np.full((4, 5), 6, np.float32),
        "gain": np.full((4, 5), 3.1, np.float32),
    }
    exec(functions, names | arrays)
