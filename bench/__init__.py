"""Measurements of speed and memory; each writes JSON to `bench/results/`, one file a machine kind.

    python -m bench                all that this machine can measure
    python -m bench.ceilings       how fast it reads files, moves memory, feeds its GPU
    python -m bench.functions      every function of the core
    python -m bench.compute        from raw samples in the memory of a device to spectra
    python -m bench.reduction      the whole reduction, by stage
    python -m bench.growth         the whole reduction, of larger and larger observations
    python -m bench.memory         whether it keeps to the memory that it is given
    python -m bench.competition    jwst and ExoTiC-MIRI beside it, on the same segment
    python -m bench.agreement      how closely each step gives what jwst gives
    python -m bench.table          the README's tables, from what was measured

Whatever takes long runs in a fresh process, so that its memory and its imports are its own. Where
STScI's packages are missing, all but the last three run on samples and references that are
simulated in memory. Tests never time anything; they only see to it that the benches run.
"""
