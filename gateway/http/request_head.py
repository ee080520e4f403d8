"""What a request may look like before its body: sizes, the fields that frame it, its target; and what is said of others.

The parser (llhttp, strict) finds bare CR and LF, folded fields, NUL and contradicting lengths; the rest is checked here.
Source: RFC 9112, sections 3 and 6.
"""

import re

import httptools

from gateway.http.problems import Problem, ProblemType

MAX_HEAD_BYTES = 32 * 1024
MAX_FIELDS = 100
MAX_TARGET_BYTES = 8 * 1024
WATCHED = frozenset({b"host", b"transfer-encoding", b"expect"})
"""Fields that `Head.watch` is to be told of."""

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_CHUNKED = "Transfer-Encoding: chunked is understood alone."
_FRAMING = {
    "Content-Length can't be present with Transfer-Encoding": "Content-Length and Transfer-Encoding exclude each other",
    "Transfer-Encoding can't be present with Content-Length": "Content-Length and Transfer-Encoding exclude each other",
    "Duplicate Content-Length": "Content-Length may come once",
    "Content-Length overflow": "Content-Length is too large a number",
    "Invalid character in Content-Length": "Content-Length must be a decimal number",
    "Unexpected whitespace after header value": "a header field must not be folded over several lines",
    "Unexpected space after start line": "the first header field must not begin with a space",
    "Invalid header token": "a header field's name must be a token with a colon right behind it",
    "Invalid header value char": "a header field's value must not hold control characters",
    "Missing expected CR after header value": "lines must end with CR LF, not with LF alone",
    "Missing expected LF after header value": "lines must end with CR LF, not with CR alone",
    "Expected CRLF after version": "the request line must end with HTTP/1.1 and CR LF",
    "Expected HTTP/, RTSP/ or ICE/": "the request line must be: method, space, target, space, HTTP/1.1",
    "Chunk size overflow": "a chunk's size is too large a number",
    "Invalid character in chunk size": "a chunk's size must be a hexadecimal number",
    "Expected LF after chunk data": "a chunk must be as long as it says, and CR LF must follow it",
    "Missing expected CR after chunk size": "lines must end with CR LF, not with LF alone",
}
"""What llhttp says, and what we say. Another of its sentences is answered with what all of them mean."""


class Head:
    """The fields of one request that say where it goes and where it ends."""

    __slots__ = ("_transfer_encoding", "continues", "hosts")

    def __init__(self) -> None:
        self.hosts: list[bytes] = []
        self.continues = False
        """Whether the client waits for a 100 before it sends the body."""
        self._transfer_encoding: bytes | None = None

    def watch(self, name: bytes, value: bytes) -> None:
        """Take one field in.

        Args:
            name: One of `WATCHED`.
            value: Its value.

        Raises:
            Problem: It asks for what there is not.
        """
        if name == b"host":
            self.hosts.append(value)
        elif name == b"transfer-encoding":
            self._transfer_encoding = value
        elif value.lower() == b"100-continue":
            self.continues = True
        else:
            raise Problem(ProblemType.EXPECTATION, "Expect: the one that is met is 100-continue.")

    def check(self, *, version: str, method: bytes, good_host: bytes | None) -> None:
        """Check what is known at the end of the header.

        Args:
            version: HTTP's, such as `1.1`.
            method: The method.
            good_host: A value of Host that need not be looked at again.

        Raises:
            Problem: The request is refused, and so is whatever follows it.
        """
        if version not in {"1.1", "1.0"}:
            raise Problem(ProblemType.VERSION, f"HTTP/{version} is not spoken here; HTTP/1.1 is.")
        if len(self.hosts) != 1 and (version == "1.1" or self.hosts):
            raise bad("Host: must come once.")
        if self.hosts and self.hosts[0] != good_host and not _HOST.fullmatch(self.hosts[0].strip()):
            raise bad("Host: must be a name or an address, perhaps with a port.")
        if self._transfer_encoding is not None:
            if version == "1.0":
                raise bad("Transfer-Encoding: HTTP/1.0 has none.")
            if self._transfer_encoding.strip().lower() != b"chunked":
                raise Problem(ProblemType.NOT_IMPLEMENTED, _CHUNKED)
        if method == b"CONNECT":
            raise Problem(ProblemType.NOT_IMPLEMENTED, "CONNECT: this is no proxy.")

    def origin_form(self, target: bytes) -> bytes:
        """The path of a target that names a host too, which must be the one that `Host` names.

        Args:
            target: Of the request line.

        Raises:
            Problem: It does not, or has no path at all.
        """
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise bad("The request's target must be a path that begins with /.")
        if not self.hosts or match[1].lower() != self.hosts[0].strip().lower():
            raise bad("The request's target names another host than Host does.")
        rest = match[2]
        return rest if rest.startswith(b"/") else b"/" + rest


def bad(detail: str) -> Problem:
    """A request that is not HTTP as it must be.

    Args:
        detail: One sentence for a person.
    """
    return Problem(ProblemType.BAD_HTTP, detail)


def head_too_large() -> Problem:
    """A header over one of its bounds."""
    return Problem(
        ProblemType.HEADER_TOO_LARGE, f"The header may have {MAX_FIELDS} fields and {MAX_HEAD_BYTES} bytes in all."
    )


def target_too_long() -> Problem:
    """A target over its bound."""
    return Problem(ProblemType.TARGET_TOO_LONG, f"The request's target may have {MAX_TARGET_BYTES} bytes.")


def found_by_parser(error: httptools.HttpParserError) -> Problem:
    """What made the parser stop.

    Args:
        error: What it raised; what one of its callbacks raised is the context.
    """
    if isinstance(error.__context__, Problem):
        return error.__context__
    said = str(error.args[0]) if error.args else ""
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Problem(ProblemType.NOT_IMPLEMENTED, "The request's method is none that is known here.")
    if said == "Invalid HTTP version" or said.startswith("Pause on PRI"):
        return Problem(ProblemType.VERSION, "That version of HTTP is not spoken here; HTTP/1.1 is.")
    if isinstance(error, httptools.HttpParserInvalidURLError):
        return bad("The request's target must be a path of visible ASCII characters.")
    if "Transfer-Encoding" in said and said not in _FRAMING:
        return Problem(ProblemType.NOT_IMPLEMENTED, _CHUNKED)
    return bad(f"The request cannot be read: {_FRAMING.get(said, 'it must follow RFC 9112')}.")
