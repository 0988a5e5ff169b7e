"""Measurements of speed and memory; each writes JSON to `bench/results/`, one file a machine kind.

    python -m bench.reduction      the whole reduction, by stage
    python -m bench.functions      every function of the core, on each backend
    python -m bench.competition    jwst and ExoTiC-MIRI beside it, on the same segment

Whatever takes long runs in a fresh process, so that its memory and its imports are its own. Tests
never time anything; they only see to it that the benches run.
"""
