"""The console as pexpect and pyte see it: two programs of others, a terminal that is driven and one that shows what comes.

    python3 console_screens.py PROGRAM SOCKET BYTES_PER_S

Each key is typed by pexpect over a line that is paced to BYTES_PER_S; pyte is the screen. Prints one line per screen; exit code 0 when all are
as they should be. Source: ours; pyte, pexpect.
"""

import random
import sys
import time

import pexpect
import pyte

PROGRAM, SOCKET, RATE = sys.argv[1], sys.argv[2], int(sys.argv[3])
COLUMNS, ROWS = 80, 24


class Seat:
    """A console at a terminal of 80x24."""

    def __init__(self):
        arguments = ["console", "--socket", SOCKET, "--serial", "QX0007"]
        self.child = pexpect.spawn(PROGRAM, arguments, dimensions=(ROWS, COLUMNS), timeout=30)
        self.screen = pyte.HistoryScreen(COLUMNS, ROWS, history=10000)
        self.stream = pyte.ByteStream(self.screen)
        self.screen.write_process_input = self.answer
        self.last = time.monotonic()

    def answer(self, text):
        """What the terminal says of itself when it is asked."""
        self.child.send(text)

    def take(self, seconds):
        """Takes what comes, no faster than the line."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                part = self.child.read_nonblocking(max(1, RATE // 50), timeout=0.02)
            except pexpect.TIMEOUT:
                continue
            self.stream.feed(part)
            time.sleep(len(part) / RATE)

    def types(self, text):
        self.child.send(text)

    def row(self):
        return self.screen.display[self.screen.cursor.y].rstrip()

    def wait(self, what, seconds=30):
        """Until a row of the screen has this."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.take(0.1)
            if any(what in row for row in self.screen.display):
                return
        sys.exit(f"{what!r} does not come:\n" + "\n".join(self.screen.display))

    def expect(self, name, good):
        print(f"{'ok  ' if good else 'FAIL'} {name}: {self.row()!r}", flush=True)
        if not good:
            sys.exit("\n".join(self.screen.display))


def main():
    seat = Seat()
    seat.wait("> ")
    seat.take(1)
    prompt = seat.row() + " "
    seat.types("sto\t")
    seat.wait("> stop")
    seat.expect("completion", seat.row() == prompt + "stop")
    seat.types("\x15backup home ?")
    seat.wait("--dry-run")
    seat.take(1)
    seat.expect("help at the cursor", seat.row() == prompt + "backup home")
    seat.types("\x15help\r")
    seat.wait("--More--")
    seat.types("q")
    seat.take(1)
    seat.expect("pages", seat.row() + " " == prompt and "OK" in seat.screen.display[seat.screen.cursor.y - 1])
    seat.types("gc\r")
    seat.wait("serial number:")
    seat.types("QX0008\r")
    seat.wait("nothing was done")
    seat.take(0.5)
    seat.expect("a slip destroys nothing", seat.row() + " " == prompt)
    # Keys at random; what is shown is what the same keys make of a line here.
    chance, text, at = random.Random(1), "", 0
    for _ in range(400):
        key = chance.choice(["a", "b", " ", "-", "left", "right", "home", "end", "back", "delete"])
        if len(key) == 1 and len(text) < 60:
            text, at = text[:at] + key + text[at:], at + 1
            seat.types(key)
        elif key == "left":
            at = max(at - 1, 0)
            seat.types("\x1b[D")
        elif key == "right":
            at = min(at + 1, len(text))
            seat.types("\x1b[C")
        elif key == "home":
            at = 0
            seat.types("\x1bOH")
        elif key == "end":
            at = len(text)
            seat.types("\x1b[4~")
        elif key == "back" and at > 0:
            text, at = text[: at - 1] + text[at:], at - 1
            seat.types("\x7f")
        elif key == "delete" and at < len(text):
            text = text[:at] + text[at + 1 :]
            seat.types("\x1b[3~")
    until = time.monotonic() + 30
    while time.monotonic() < until and seat.row() != (prompt + text).rstrip():
        seat.take(0.2)
    good = seat.row() == (prompt + text).rstrip() and seat.screen.cursor.x == len(prompt) + at
    seat.expect("keys at random", good)
    seat.types("\x05\x15exit\r")
    seat.child.expect(pexpect.EOF)


main()
