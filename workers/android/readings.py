"""What an action answers, and how a phone's output becomes an answer or the error that says why there is none."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from contracts.errors import ErrorCode, Permanent
from workers.android.adb.server import ShellOutput
from workers.android.reasons import complains, reason
from workers.handler import Artifact

_QUOTED_IN_ERRORS_BYTES = 2000
_REFUSED = re.compile(r"SecurityException|INJECT_EVENTS|Permission denied|not allowed to", re.IGNORECASE)
_VENDORS_SWITCH = re.compile(r"inject|WRITE_SECURE_SETTINGS", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    """An action's answer."""

    output: dict[str, Any]
    """JSON-ready."""
    artifacts: tuple[Artifact, ...] = ()


def artifact_reading(content: bytes, content_type: str, **facts: Any) -> Reading:
    """An answer that is a blob: where it is read, how large it is, and its hash.

    Args:
        content: The blob.
        content_type: Its media type.
        facts: What else is known of it, such as a picture's size.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    described = {
        "sha256": sha256,
        "size_bytes": len(content),
        "content_type": content_type,
        **facts,
        "href": f"/api/artifacts/{sha256}",
    }
    return Reading({"artifact": described}, (Artifact(sha256, content_type, content),))


def read_silence(output: ShellOutput) -> Reading:
    """The answer of a program that prints nothing unless something is wrong, whatever its exit code says.

    Raises:
        Permanent: Something is wrong.
    """
    return read_started(output, {})


def read_started(output: ShellOutput, started: dict[str, Any]) -> Reading:
    """The answer of a program that has versions which exit with 0 after failing.

    Args:
        output: What it printed.
        started: The answer when nothing is wrong.

    Raises:
        Permanent: Something is wrong.
    """
    if complains(output):
        raise failure(output)
    succeeded(output)
    return Reading(dict(started))


def succeeded(output: ShellOutput) -> bytes:
    """What a program printed that exited with 0.

    Raises:
        Permanent: It did not (nonzero_exit, denied), or printed more than was read (truncated).
    """
    if output.truncated:
        sentence = (
            f"the phone printed more than the {len(output.stdout) + len(output.stderr)} bytes that are read of it"
        )
        raise Permanent(ErrorCode.TRUNCATED, sentence)
    if output.exit_code:
        raise failure(output)
    return output.stdout


def failure(output: ShellOutput) -> Permanent:
    """Why a program's output means that the phone did not do it; the sentence quotes the line that says so."""
    stdout, stderr = text_of(output.stdout[:_QUOTED_IN_ERRORS_BYTES]), text_of(output.stderr[:_QUOTED_IN_ERRORS_BYTES])
    said = reason(output)
    details = {"exit_code": output.exit_code, "stdout": stdout, "stderr": stderr}
    if _REFUSED.search(f"{said}\n{stderr}\n{stdout}"):
        advice = "; some vendors need 'USB debugging (Security settings)'" if _VENDORS_SWITCH.search(said) else ""
        return Permanent(ErrorCode.DENIED, f"the phone does not permit this to adb{advice}: {said}", details=details)
    return Permanent(
        ErrorCode.NONZERO_EXIT, f"the phone reported failure ({output.exit_code}): {said}", details=details
    )


def text_of(content: bytes) -> str:
    """Text that JSON and PostgreSQL can hold: what is not UTF-8, and NUL, becomes U+FFFD."""
    return content.decode(errors="replace").replace("\0", "\ufffd")
