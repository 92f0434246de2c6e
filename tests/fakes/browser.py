"""A person's browser (`BROWSER`), without a screen: opens the link and does what the test has said, writing down what it sees.

`FAKE_BROWSER` names a JSON file: `do` is a list of [path, body] to post, `saw` what came back.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

STATE = Path(os.environ["FAKE_BROWSER"])


def asked(url: str, body: Any = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def main(link: str) -> None:
    state = json.loads(STATE.read_text())
    state.setdefault("links", []).append(link)
    saw = state.setdefault("saw", [])
    parts = urlsplit(link)
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme == "http":
        _, text, headers = asked(origin + "/")
        saw.append(["GET /", text, headers.get("X-Frame-Options", "")])
        sent = {"Origin": origin, "Content-Type": "application/json"}
        _, _, headers = asked(f"{origin}/open", {"secret": parts.fragment}, **sent)
        cookie = headers.get("Set-Cookie", "").partition(";")[0]
        for path, body in state["do"]:
            status, text, _ = asked(origin + path, body, **(sent if body is not None else {}), Cookie=cookie)
            saw.append([path, status, text])
    STATE.write_text(json.dumps(state))


if __name__ == "__main__":
    main(sys.argv[1])
