"""The stack's own adb server: a real one, with its own port and keys, so that it never meets another on this machine."""

from ops.stack.child import Spec, environment
from ops.stack.layout import LOOPBACK, Layout
from ops.stack.probes import adb_answers, adb_query


class AdbServer:
    """One private adb server."""

    def __init__(self, layout: Layout, program: str) -> None:
        self._layout = layout
        self._program = program
        self._home = layout.folder("adb")

    @property
    def address(self) -> str:
        """`host:port`, as `ISH_ADB_SERVERS` wants it."""
        return f"{LOOPBACK}:{self._layout.ports.adb}"

    def spec(self) -> Spec:
        """How to run it."""
        port = self._layout.ports.adb
        variables = {
            "HOME": str(self._home),
            "TMPDIR": str(self._home),
            "ANDROID_ADB_SERVER_PORT": str(port),
            # only what it is told to connect to: a phone on USB stays with the person's own adb server, which can be
            # given in ISH_ADB_SERVERS, and nothing listens beyond loopback for mDNS
            "ADB_MDNS": "0",
            "ADB_USB": "0",
            "ADB_EMU": "0",
            "ADB_REJECT_KILL_SERVER": "1",
        }
        return Spec(
            name="adb",
            argv=(self._program, "-L", f"tcp:localhost:{port}", "nodaemon", "server"),
            environment=environment(variables, without="ADB_"),
            log_file=self._layout.logs_dir / "adb.log",
            ready=lambda: adb_answers(LOOPBACK, port),
            listens=((LOOPBACK, port),),
            folder=self._home,
        )

    def connect(self, device: str) -> bool:
        """Tell the server about a device that listens on TCP.

        Args:
            device: `host:port` of its adbd.

        Returns:
            Whether the device is connected and may be used.
        """
        port = self._layout.ports.adb
        adb_query(LOOPBACK, port, f"host:connect:{device}")
        devices = adb_query(LOOPBACK, port, "host:devices") or ""
        return f"{device}\tdevice" in devices.splitlines()
