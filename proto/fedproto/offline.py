"""Nothing calls out: Flower's telemetry, update check and run-time installs are switched off.

Call `seal_environment` before flwr is imported; child processes inherit it.
"""

import os

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def seal_environment() -> None:
    """Switch off what Flower would do of its own accord."""
    os.environ.update(ENVIRONMENT)
