"""Hold the scripted conversations of eval/conversations with the model of a run of the bundled films.

    python eval/conversations.py RUN [--only WORDS] [--proposals auto|off|on]

Prints what does not hold, and how many conversations passed; exit status 1 where one did not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from genrec.chat import Dialogue
from genrec.chat.scripts import load_scripts, play
from genrec.chat.speaker import as_proposals
from genrec.errors import GenrecError
from genrec.recommender import Recommender

FOLDER = Path(__file__).parent / "conversations"


def main() -> int:
    """Read the command line, play, print."""
    parser = argparse.ArgumentParser(description="Scripted conversations with the model of a run.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--only", default="", help="conversations whose name holds these words")
    parser.add_argument("--proposals", default="auto", help="whether the model proposes: auto, off or on")
    given = parser.parse_args()
    try:
        dialogue = Dialogue.over(Recommender.load(given.run), proposals=as_proposals(given.proposals))
        scripts = [script for path in sorted(FOLDER.glob("*.yaml")) for script in load_scripts(path)]
        chosen = [script for script in scripts if given.only in script.name]
        problems = [play(dialogue, script) for script in chosen]
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    for problem in (one for found in problems for one in found):
        print(problem)
    print(f"{sum(not found for found in problems)} of {len(chosen)} conversations passed")
    return int(any(problems))


if __name__ == "__main__":
    sys.exit(main())
