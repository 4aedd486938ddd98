"""Commands on other machines through OpenSSH's client, as people run it."""

from tasks.images.remote.host import Host
from tasks.images.remote.ssh import Judge, Ran, Receiving, Remote, Sending

__all__ = ["Host", "Judge", "Ran", "Receiving", "Remote", "Sending"]
