"""The link protocol, sans-IO: what both ends of the tunnel share. It knows no sockets, no clock and no asyncio."""
