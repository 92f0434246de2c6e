"""Opens a page in the person's browser; where there is none, shows the link and a QR code of it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from webhook.cli.elevation import say

GRAPHICAL: Final = ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")


def is_here() -> bool:
    """Whether a browser can be opened on this machine, and the person sees it.

    Over ssh, a browser would open where nobody looks; `BROWSER` says that there is one all the same.
    """
    if os.environ.get("BROWSER"):
        return True
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        return False
    return sys.platform == "darwin" or any(os.environ.get(one) for one in GRAPHICAL)


def show(url: str, *, is_local: bool) -> None:
    """Open a link, and print it: whether a browser has really opened it, nobody tells."""
    if is_here():
        # Quiet, and not ended by our Ctrl-C: what a browser prints is not for this terminal.
        subprocess.Popen(  # noqa: S603 - the standard library's own program
            [sys.executable, "-m", "webbrowser", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        say(f"opening your browser; if nothing opens: {url}")
        return
    if is_local:
        port = url.split(":")[2].split("/", maxsplit=1)[0]
        say(f"no browser here. From the machine of your browser: ssh -L {port}:localhost:{port} …, then open {url}")
        return
    import segno

    say(f"open this where your passkey is: {url}")
    segno.make(url, error="m").terminal(out=sys.stderr, compact=True)
    sys.stderr.flush()
