"""TLS in front of a PostgreSQL that has none: the server of the wheel was built without.

Clients of it ask for TLS as PostgreSQL's protocol has it, and are refused without, as by a `pg_hba.conf` that has
`hostssl` alone. What they say then goes to the server's socket byte for byte: users, passwords and time-outs are the
server's own.

    python postgres_front.py SOCKET CERTIFICATE KEY      prints its port, serves until killed
"""

import asyncio
import ssl
import struct
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
BLOCK = 256 * 1024
CLOSING_S = 5.0
REFUSAL = "no pg_hba.conf entry for this host, no encryption"


class Front:
    """One server, many clients."""

    def __init__(self, socket: str, context: ssl.SSLContext) -> None:
        self._socket = socket
        self._context = context

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one client's connection to its end."""
        with suppress(OSError, asyncio.IncompleteReadError):  # a side is gone, and with it the connection
            if (said := await self._greeted(reader, writer)) is not None:
                server = await asyncio.open_unix_connection(self._socket)
                server[1].write(said)
                await _either(_carry(reader, server[1]), _carry(server[0], writer))
                await _closed(server[1])
        await _closed(writer)

    async def _greeted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """What is to be said to the server first; None for a client that is refused."""
        while True:
            head = await reader.readexactly(8)
            length, code = struct.unpack("!ii", head)
            if code == SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                return b""
            if code == CANCEL_REQUEST:  # comes without TLS from clients of before PostgreSQL 17
                return head + await reader.readexactly(length - len(head))
            if code != GSS_REQUEST:
                writer.write(_error(REFUSAL))
                return None
            writer.write(b"N")


def _error(message: str) -> bytes:
    fields = b"".join(
        kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"C", "28000"), (b"M", message))
    )
    return b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(BLOCK):
            sink.write(data)
            await sink.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Say the last words, and that they are the last."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), CLOSING_S)
    except (OSError, TimeoutError):  # it does not listen any more
        writer.transport.abort()


async def _either(*ways: Coroutine[Any, Any, None]) -> None:
    """Until one of them ends; TLS knows no connection that is open in one direction."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()


async def main(socket: str, certificate: str, key: str) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(Front(socket, context).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
