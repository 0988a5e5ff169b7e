"""`python -m miri_gpu` is `miri-gpu`."""

from miri_gpu.cli import main

if __name__ == "__main__":
    main(prog_name="miri-gpu")
