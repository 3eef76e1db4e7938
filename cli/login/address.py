"""URLs that secrets are sent to, and texts from afar that are shown: what is fit for either. It is quick to import."""

from __future__ import annotations

from urllib.parse import urlsplit

from cli.failures import Failed

_PORTS = {"https": 443, "http": 80}


def secure(url: object, *, loopback: bool = False) -> str | None:
    """The URL, if secrets may go there: https, or, where `loopback` allows, http on this very machine."""
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or len(url) > 2_048 or " " in url:
        return None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or "@" in parts.netloc or "#" in url or "\\" in url:
        return None
    fits = parts.scheme == "https" or (loopback and parts.scheme == "http" and on_this_machine(host))
    return url if fits else None


def on_this_machine(host: str) -> bool:
    """Whether a host is this one, by its name alone."""
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def gateway(url: str) -> str:
    """A gateway's address in its one spelling: https://HOST[:PORT]. :raises Failed: it is none."""
    parts = urlsplit(url) if secure(url) else None
    if parts is None or parts.path.strip("/") or "?" in url:
        raise Failed(f"--server {plain(url)!r} is not https://HOST[:PORT]")
    return origin(url)


def origin(url: str) -> str:
    """Scheme, host and port of a URL, in one spelling. Empty where it is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port not in (None, _PORTS.get(parts.scheme)) else "")


def plain(text: object, most: int = 200) -> str:
    """What a server said, fit for a terminal: short, on one line, no control characters. Empty where it is no text."""
    if not isinstance(text, str):
        return ""
    return "".join(one if one.isprintable() else " " for one in text[:most]).strip()
