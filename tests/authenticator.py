"""An authenticator that types by itself: prints the next code of a file and strikes it out.

For `KUBECTL_ELEVATE_CODE_COMMAND`, where a person would have a password manager's command line or a security key's.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    file = Path(sys.argv[1])
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join(rest))
    print(first)
