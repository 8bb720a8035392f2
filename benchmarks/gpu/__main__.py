"""`python -m benchmarks.gpu`: see `runner`."""

from benchmarks.gpu.runner import main

if __name__ == "__main__":
    raise SystemExit(main())
