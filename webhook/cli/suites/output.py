"""What a run of suites tells: text with a diff of what differs, JSON lines, and JUnit XML for continuous integration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final
from xml.etree import ElementTree as ET

import msgspec

from webhook.cli.suites.verdict import Difference, Verdict

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, not even escaped (section 2.2)."""


def text(verdicts: Sequence[Verdict]) -> str:
    """For people: a line a case, and beneath those that fail what was expected (-) and what was found (+)."""
    lines: list[str] = []
    for one in verdicts:
        lines.append(f"{'ok  ' if one.passed else 'FAIL'} {one.suite}: {one.case}")
        lines += _diff(one)
    failed = sum(not one.passed for one in verdicts)
    lines.append(f"{len(verdicts)} cases, {failed} failed" if failed else f"{len(verdicts)} cases, all as expected")
    return "\n".join(lines)


def json_line(verdict: Verdict) -> str:
    """For programs: one object a case."""
    found = {
        "suite": verdict.suite,
        "case": verdict.case,
        "passed": verdict.passed,
        "differences": [msgspec.structs.asdict(one) for one in verdict.differences],
        "reason": verdict.why,
    }
    return msgspec.json.encode(found).decode()


def junit(verdicts: Iterable[Verdict]) -> bytes:
    """JUnit XML, as CI systems read it."""
    root = ET.Element("testsuites")
    for name, group in groupby(verdicts, key=lambda one: one.suite):
        cases = list(group)
        suite = ET.SubElement(root, "testsuite", _attributes(name=name, **_counts(cases)))
        for one in cases:
            attributes = _attributes(classname=name, name=one.case, time=f"{one.seconds:.6f}")
            case = ET.SubElement(suite, "testcase", attributes)
            if not one.passed:
                message = "; ".join(
                    f"{d.field}: expected {_shown(d.expected)}, is {_shown(d.found)}" for d in one.differences
                )
                failure = ET.SubElement(case, "failure", _attributes(type="unexpected", message=message))
                failure.text = _clean("\n".join(_diff(one)))
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _counts(cases: Sequence[Verdict]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(not one.passed for one in cases)),
        "errors": "0",
        "skipped": "0",
        "time": f"{sum(one.seconds for one in cases):.6f}",
    }


def _diff(verdict: Verdict) -> list[str]:
    lines = [line for one in verdict.differences for line in _change(one)]
    return [*lines, f"       because: {verdict.why}"] if lines else []


def _change(one: Difference) -> tuple[str, str]:
    return f"     - {one.field}: {_shown(one.expected)}", f"     + {one.field}: {_shown(one.found)}"


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "(none)"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _attributes(**values: str) -> dict[str, str]:
    return {name: _clean(value) for name, value in values.items()}


def _clean(value: str) -> str:
    return _NOT_XML.sub("�", value)
