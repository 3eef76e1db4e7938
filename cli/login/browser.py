"""Whether a browser can be opened here, and how. Its output goes nowhere: standard output may be kubectl's."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping

VARIABLE = "BROWSER"
_DESKTOP = ("xdg-open", "wslview", "x-www-browser", "sensible-browser")

Which = Callable[[str], str | None]


def command(env: Mapping[str, str], platform: str, which: Which = shutil.which) -> list[str] | None:
    """What opens a URL here, for `sys.platform`; None where there is no screen to open it on. $BROWSER beats all."""
    for part in env.get(VARIABLE, "").split(":"):
        words = _words(part)
        if words and which(words[0]):
            return words
    if platform == "darwin":
        return ["open"] if not _remote(env) else None
    if not (env.get("DISPLAY") or env.get("WAYLAND_DISPLAY") or env.get("WSL_DISTRO_NAME")):
        return None
    return next(([name] for name in _DESKTOP if which(name)), None)


def open_url(words: list[str], url: str) -> bool:
    """Whether the program was started; whether it shows anything, nobody knows."""
    argv = [word.replace("%s", url) for word in words]
    if argv == words:
        argv.append(url)
    silent = subprocess.DEVNULL
    try:
        process = subprocess.Popen(argv, stdin=silent, stdout=silent, stderr=silent, start_new_session=True)
    except OSError:
        return False
    # Some end at once, some are the browser itself and stay; nobody waits for either, but for its end's sake.
    threading.Thread(target=process.wait, name="the browser", daemon=True).start()
    return True


def _remote(env: Mapping[str, str]) -> bool:
    return bool(env.get("SSH_CONNECTION") or env.get("SSH_TTY"))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []
