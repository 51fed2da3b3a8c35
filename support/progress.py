"""How far a program is: a bar on a terminal, else a line now and then."""

import sys
import time

from tqdm import tqdm

from support.processes import rank

INTERVAL = 30  # seconds between two lines


class Progress:
    """Goes through some items and shows how far it is. `items` may be None: then call `bar.update`."""

    def __init__(self, items, title: str, silent: bool = False):
        self.title, self.next_line = title, time.monotonic() + INTERVAL
        self.lines = rank() == 0 and not silent and not sys.stderr.isatty()
        self.bar = tqdm(items, desc=title, leave=False, disable=rank() > 0 or silent or self.lines)

    def __iter__(self):
        return iter(self.bar)

    def show(self, step: int, note: str):
        """Puts a note behind the bar; without a terminal, prints a line if the last one is long ago."""
        self.bar.set_postfix_str(note)
        if self.lines and time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + INTERVAL
            print(f"{self.title}, {step} of {self.bar.total}, {note}", flush=True)
