"""What the states that adb reports mean for a command, and what a person can do about each."""

from contracts.errors import Deferred, ErrorCode, Permanent

READY = "device"
UNRESPONSIVE = "unresponsive"
"""Ours, not adb's: connected, but commands get no answer."""
OFFLINE = "offline"
BOOTING = "booting"
"""Ours: adb is there, Android's services are not yet."""
UNSUPPORTED = "unsupported"
"""Ours: it speaks only the shell protocol of Android 6 and older, which tells no exit codes."""
AMBIGUOUS = "ambiguous"
"""Ours: it cannot be told from another phone, so that nothing is sent to either by that name."""

LOOK_AGAIN_SECONDS = 2.0
"""How soon a command that found its phone not ready looks again."""
NOT_CONFIGURED = (
    "no phone is connected: connect one to an adb server (`adb connect HOST:PORT`, or a USB cable with USB debugging on) "
    "and name that server in ISH_ADB_SERVERS (host:port, comma-separated)"
)
FENCE_UNSUPPORTED = (
    "fence unsupported: the phone cannot keep a file in /data/local/tmp, so that only clocks protect it from a worker "
    "that was frozen"
)
UNAUTHORIZED_HINT = "accept the USB debugging prompt on the phone's screen, and tick 'always allow from this computer'"
_HINTS = {
    "unauthorized": UNAUTHORIZED_HINT,
    "authorizing": UNAUTHORIZED_HINT,
    OFFLINE: "check that the phone is on and its cable or network works, or plug it in again",
    UNRESPONSIVE: "the phone is connected but answers no command; restart it",
    "connecting": "the phone is being connected; this takes a few seconds",
    BOOTING: "Android is starting on the phone; its commands wait until it has",
    UNSUPPORTED: "the phone has no shell_v2, as Android 6 and older: use one with Android 7 or newer",
    AMBIGUOUS: "another phone has the same serial number, and the two cannot be told apart: connect one of them at a time, or "
    "both over the network, where each has an address",
    "recovery": "the phone is in recovery mode; restart it into Android",
    "sideload": "the phone is in recovery mode; restart it into Android",
    "rescue": "the phone is in rescue mode; restart it into Android",
    "bootloader": "the phone is in its boot loader; restart it into Android",
}


def hint(state: str) -> str | None:
    """What a person can do about a phone in this state; None when it is ready."""
    if state == READY:
        return None
    if state.startswith("no permissions"):
        return "this computer's user may not use the USB device; add a udev rule for it and plug the phone in again"
    return _HINTS.get(state, "plug the phone in again, or restart it")


def needs_permission(state: str) -> bool:
    """Whether somebody has to allow the use of a phone in this state."""
    return state in ("unauthorized", "authorizing") or state.startswith("no permissions")


def not_ready(
    serial: str, state: str, *, advice: str | None = None, again_seconds: float = LOOK_AGAIN_SECONDS
) -> Deferred:
    """Why a command cannot run on a phone in this state; nothing was sent to it, and it waits.

    Args:
        serial: The phone.
        state: adb's word for it, or `unresponsive`.
        advice: What to do, when more is known than the state says.
        again_seconds: When to look again.
    """
    code = ErrorCode.DEVICE_UNAUTHORIZED if needs_permission(state) else ErrorCode.DEVICE_OFFLINE
    return Deferred(
        code,
        f"{serial} is {state}: {advice or hint(state)}",
        retry_after_seconds=again_seconds,
        details={"device": serial, "state": state},
    )


def unsupported(serial: str) -> Permanent:
    """Why no command will ever run on a phone without `shell_v2`.

    Args:
        serial: The phone.
    """
    sentence = f"{serial} is {UNSUPPORTED}: {_HINTS[UNSUPPORTED]}; nothing was sent to it"
    return Permanent(ErrorCode.DEVICE_UNSUPPORTED, sentence, details={"device": serial, "state": UNSUPPORTED})


def not_configured() -> Permanent:
    """There is nothing that a command could run on."""
    return Permanent(ErrorCode.DEVICE_NOT_CONFIGURED, NOT_CONFIGURED)
