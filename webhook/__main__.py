"""``python -m webhook admission|elevation|controller --config FILE``: starts one of the servers."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from typing import Final

import uvloop

from webhook.errors import ConfigurationError
from webhook.settings import load

SERVERS: Final = {
    "admission": "webhook.admission.server",
    "elevation": "webhook.elevation.server",
    "controller": "webhook.controller.server",
}
EXIT_BAD_CONFIGURATION: Final = 2


def main(arguments: list[str] | None = None) -> int:
    """Run one server until it is told to stop; the exit code is 2 when its settings cannot work."""
    parser = argparse.ArgumentParser(prog="python -m webhook", description=__doc__)
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--config", help="YAML file with the settings (default: $KUBE_STEPUP_CONFIG)")
    chosen = parser.parse_args(arguments)
    try:
        settings = load(chosen.config)
        module = importlib.import_module(SERVERS[chosen.server])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(module.run(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"kube-stepup: {error}\n")
        return EXIT_BAD_CONFIGURATION
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
