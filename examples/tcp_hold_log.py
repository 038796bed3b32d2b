#!/usr/bin/env python3
"""Appends what comes by a connection to a log; what is not on the disk, the peer still has.

usage: tcp_hold_log.py AGENT LOG ADDRESS PORT    (AGENT: the socket of `tcp_hold agent`)
Whoever connects is told first, in 8 bytes, how much of his stream the log has already."""
import os
import socket
import struct
import sys

HOLD, CONFIRM, RELEASE, HOLD_ACCEPTED = 1, 2, 3, 6

def ask(agent, verb, handle=0, number=0, sockets=()):
    request = struct.pack("!BBHIQ", 1, verb, 0, handle, number)
    socket.send_fds(agent, [request], [each.fileno() for each in sockets])
    _, _, error, handle, _, _ = struct.unpack("!BBHIQQ", agent.recv(24))
    if error:
        raise OSError(f"the agent refuses {verb}: error {error}")
    return handle

agent_path, log_path, address, port = sys.argv[1:]
agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
agent.connect(agent_path)
log = open(log_path, "ab")
os.fsync(os.open(os.path.dirname(os.path.abspath(log_path)), os.O_RDONLY))  # that there is a log
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, int(port)))
ask(agent, HOLD_ACCEPTED, sockets=[listener])  # before it listens: not a byte is missed
listener.listen()
print("ready", listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    handle = ask(agent, HOLD, sockets=[connection])
    connection.sendall(struct.pack("!Q", log.tell()))
    while data := connection.recv(65536):
        log.write(data)
        log.flush()
        os.fsync(log.fileno())
        ask(agent, CONFIRM, handle, len(data))
    ask(agent, RELEASE, handle)  # all is confirmed: it ends in order
    connection.close()
