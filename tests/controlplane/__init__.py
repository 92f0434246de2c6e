"""A real Kubernetes control plane on loopback, without containers: for the cluster tests, the demo and `make cluster`.

`from tests.controlplane import ControlPlane` is all that a test needs; `python -m tests.controlplane` is the command.
"""

from tests.controlplane.cluster import ADMIN, DEVELOPERS, ControlPlane, Finished
from tests.controlplane.pki import KeyPair
from tests.controlplane.process import ControlPlaneError
from tests.controlplane.programs import Programs, ProgramsError

__all__ = [
    "ADMIN",
    "DEVELOPERS",
    "ControlPlane",
    "ControlPlaneError",
    "Finished",
    "KeyPair",
    "Programs",
    "ProgramsError",
]
