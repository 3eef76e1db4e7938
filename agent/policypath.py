"""Which paths have one meaning only. Rules go by what a path means, so with rules an agent passes no other.

kube-apiserver reads a path decoded, an application behind `*/proxy` as it likes; a proxy in front of either may clean
it. The gateway refuses such paths as well; no agent relies on that.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

_PLAIN: Final = re.compile(rb"/|(?:/(?!\.{1,2}(?:/|\Z))[!$&'()*+,\-.0-9:=@A-Z_a-z~]++)++/?")
_PROXIED: Final = re.compile(
    rb"/(?:api/v1|apis/[^/]+/[^/]+)/(?:namespaces/[^/]+/)?(?!namespaces/|watch/|proxy/)[^/%]+/[^/]+/proxy(?=/|\Z)"
)
_BROKEN: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f\\]")
_HIDDEN: Final = re.compile(rb"%2f|%25|%2e|%3b", re.IGNORECASE)


def ambiguous(path: bytes) -> bool:
    """Whether two readers might take this raw path, without its query, for different ones."""
    if _PLAIN.fullmatch(path):
        return False
    proxied = _PROXIED.match(path)
    end = proxied.end() if proxied else len(path)
    return _strictly(path[:end]) or _leads_out(path[end:])


def _strictly(path: bytes) -> bool:
    """Of the API's own paths: no separator or dot that is encoded, no empty segment, no parameters."""
    if path[:1] != b"/" or b"//" in path or b";" in path or _HIDDEN.search(path):
        return True
    return _leads_out(path)


def _leads_out(path: bytes) -> bool:
    """Whether anything may climb out of where it stands: an application's paths may be odd, but not so."""
    decoded = unquote_to_bytes(path)
    if _BROKEN.search(path) or _CONTROL.search(decoded) or not _is_text(decoded):
        return True
    return any(part.partition(b";")[0] in (b".", b"..") for part in decoded.split(b"/"))


def _is_text(decoded: bytes) -> bool:
    try:
        decoded.decode()
    except UnicodeDecodeError:
        return False
    return True
