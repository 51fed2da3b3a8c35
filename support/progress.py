"""How far a program is: a bar on a terminal, else a line now and then."""

import sys
import time

from tqdm import tqdm

from support.processes import rank

INTERVAL = 30  # seconds between two lines


class Progress:
    """Goes through some items and shows how far it is. `items` can be None, for a count that is updated."""

    def __init__(self, items, title: str, silent: bool = False):
        self.title, self.next_line = title, time.monotonic() + INTERVAL
        self.lines = rank() == 0 and not silent and not sys.stderr.isatty()
        self.bar = tqdm(items, desc=title, leave=False, disable=rank() > 0 or silent or self.lines)
        self.step = 0

    def __iter__(self):
        for item in self.bar:
            self.step += 1
            yield item

    def show(self, note: str):
        """Puts a note behind the bar; without a terminal, prints a line if the last one is long ago."""
        self.bar.set_postfix_str(note)
        if self.lines and time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + INTERVAL
            print(f"{self.title}, {self.step} of {self.bar.total}, {note}", flush=True)
