"""``python -m dlferry [--json]``: what `show_config` says, for bug reports. Always exits with 0."""

from __future__ import annotations

import argparse
import json

from dlferry._config import show_config


def main() -> None:
    """Print the configuration."""
    parser = argparse.ArgumentParser(prog="python -m dlferry", description="Show how dlferry runs.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    config = show_config()
    if parser.parse_args().json:
        print(json.dumps(config, indent=2))
        return
    for key, value in config.items():
        print(f"{key:14} {value}")


if __name__ == "__main__":
    main()
