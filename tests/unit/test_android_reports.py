import pytest

from contracts.errors import ErrorCode, Permanent
from workers.android.adb.server import AdbServer
from workers.android.adb.states import hint, not_configured, not_ready
from workers.android.monitor.devices import parse_servers
from workers.android.reports import read_battery, read_focus, read_packages, read_properties, read_screen

# as a Pixel with Android 14 prints it
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 3364000
  status: 2
  health: 2
  present: true
  level: 43
  scale: 50
  voltage: 4180
  temperature: 305
  technology: Li-ion
"""
FOCUS = """  mCurrentFocus=Window{d4dcdc3 u0 com.google.android.apps.nexuslauncher/com.google.android.apps.nexuslauncher.NexusLauncherActivity}
  mFocusedApp=ActivityRecord{b7d3f06 u0 com.google.android.apps.nexuslauncher/.NexusLauncherActivity t8}
"""


def test_a_battery_report_is_read_in_plain_units() -> None:
    assert read_battery(BATTERY) == {
        "level_percent": 86,
        "status": "charging",
        "health": "good",
        "power_source": "usb",
        "temperature_celsius": 30.5,
        "voltage_volts": 4.18,
    }


def test_what_a_battery_report_leaves_out_is_none() -> None:
    assert set(read_battery("Current Battery Service state:\n").values()) == {None}


@pytest.mark.parametrize(
    ("report", "package", "activity"),
    [
        (
            FOCUS,
            "com.google.android.apps.nexuslauncher",
            "com.google.android.apps.nexuslauncher.NexusLauncherActivity",
        ),
        ("  mFocusedApp=ActivityRecord{9e4 u0 com.ish.notes/.Notes t12}", "com.ish.notes", "com.ish.notes.Notes"),
        (
            "mFocusedApp=AppWindowToken{fc5 token=Token{b9e ActivityRecord{ec9 u0 com.a.b/.C t1}}}",
            "com.a.b",
            "com.a.b.C",
        ),
        ("  mCurrentFocus=Window{7c1 u0 NotificationShade}\n  mFocusedApp=null", None, None),
        ("  mCurrentFocus=Window{7c1 u0 StatusBar}\n  mFocusedApp=ActivityRecord{9e4 u0 com.a/.B t1}", None, None),
        (
            "  mCurrentFocus=Window{7c1 u0 PopupWindow:ab1}\n  mFocusedApp=ActivityRecord{9e4 u0 com.a/.B t1}",
            "com.a",
            "com.a.B",
        ),
        ("mCurrentFocus=null\nmCurrentFocus=Window{1 u0 com.a/com.a.B}", "com.a", "com.a.B"),
        ("mCurrentFocus=null", None, None),
        ("", None, None),
    ],
)
def test_the_app_in_front_is_read_from_every_androids_report(
    report: str, package: str | None, activity: str | None
) -> None:
    assert read_focus(report) == {"package": package, "activity": activity}


@pytest.mark.parametrize(
    ("told", "locked"),
    [
        ("      showing=true", True),
        ("      showing=false", False),
        ("    mShowingLockscreen=false mShowingDream=false mDreamingLockscreen=true", True),
        ("      mIsShowing=true", True),
    ],
)
def test_the_app_behind_a_lock_screen_is_not_in_front(told: str, *, locked: bool) -> None:
    behind = "mCurrentFocus=null\n  mFocusedApp=ActivityRecord{9e4 u0 com.a/.B t1}"

    focus = read_focus(f"{told}\n{behind}")

    assert focus == {
        "package": None if locked else "com.a",
        "activity": None if locked else "com.a.B",
        "locked": locked,
    }


def test_an_overridden_screen_size_wins() -> None:
    report = "Physical size: 1440x3120\nOverride size: 1080x2340\n"

    assert read_screen(report, "mWakefulness=Dozing") == {"width": 1080, "height": 2340, "on": False}


def test_a_property_may_span_lines() -> None:
    assert read_properties("[a.b]: [one\ntwo]\n[c]: []\n") == {"a.b": "one\ntwo", "c": ""}


def test_adb_servers_are_given_as_addresses() -> None:
    assert parse_servers(" 127.0.0.1:5038, phones.example ,") == [
        AdbServer("127.0.0.1", 5038),
        AdbServer("phones.example", 5037),
    ]
    assert parse_servers("") == []


@pytest.mark.parametrize("value", ["a:b", "a:0", "a:65536", ":5037", "127.0.0.1:5038:x"])
def test_a_malformed_adb_server_is_refused_by_name(value: str) -> None:
    with pytest.raises(ValueError, match=f"'{value}' is not host:port"):
        parse_servers(value)


def test_packages_are_read_sorted_and_without_what_is_printed_around_them() -> None:
    report = "WARNING: linker\npackage:org.b\r\npackage:com.a.b\n\n"

    assert read_packages(report) == ["com.a.b", "org.b"]


def test_every_state_but_ready_says_what_to_do() -> None:
    assert hint("device") is None
    assert "USB debugging prompt" in (hint("unauthorized") or "")
    assert "udev" in (hint("no permissions (user in plugdev group); see [http://developer.android.com]") or "")
    assert hint("something new")


def test_no_phone_says_what_to_configure() -> None:
    assert isinstance(not_configured(), Permanent)
    assert "ISH_ADB_SERVERS" in not_configured().message
    assert not_ready("SIM1", "unauthorized").code is ErrorCode.DEVICE_UNAUTHORIZED
    assert not_ready("SIM1", "offline").code is ErrorCode.DEVICE_OFFLINE
