"""How often the model of a run understands messages and writes words that may be said (docs/chat.md).

    python eval/proposals.py RUN [--count 500] [--seed 0]

Asks about messages of phrases that are never trained on, and of those that are, and prints how many are right in every
part: the model alone, the reading without it, and the two together under the guard; what became of the proposals and of
the model's words; items that do not exist and titles that were not decoded. RUN was trained with H1 and H2
(train/configs/chat.yaml). `python eval/conversations.py RUN --proposals on` holds the scripted conversations.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from genrec.chat import Dialogue
from genrec.chat.proposal_measuring import Case, Understood, count_proposals, faults, make_cases, understand
from genrec.errors import GenrecError
from genrec.recommender import Recommender
from genrec.tasks.data import load_task_data
from genrec.tasks.messages import Messages

_SLOTS = ("act", "want", "avoid", "years", "liked", "disliked", "seen", "like", "about", "also")


def right_table(found: dict[str, list[Understood]]) -> list[str]:
    """Markdown: the share of messages of which everything was understood, by phrases."""
    lines = ["| phrases | messages | the model alone | the reading alone | together |", "|---|---|---|---|---|"]
    for name, ones in found.items():
        shares = [sum(getattr(one, who) == one.wanted for one in ones) / len(ones) for who in _WHO]
        lines.append(f"| {name} | {len(ones)} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
    return lines


_WHO = ("model", "reading", "together")


def slot_table(ones: list[Understood]) -> list[str]:
    """Markdown: of the messages that have a slot, the share in which it is right."""
    lines = ["| slot | messages | the model alone | the reading alone | together |", "|---|---|---|---|---|"]
    for slot in _SLOTS:
        having = [one for one in ones if _only(one.wanted, slot)]
        shares = [sum(_only(getattr(one, who), slot) == _only(one.wanted, slot) for one in having) for who in _WHO]
        lines.append(
            f"| {slot} | {len(having)} | " + " | ".join(f"{100 * n / len(having):.1f} %" for n in shares) + " |"
        )
    return lines


def _only(parts: frozenset[tuple[str, str]], slot: str) -> frozenset[str]:
    return frozenset(value for name, value in parts if name == slot)


def words_said(dialogue: Dialogue, cases: list[Case]) -> tuple[Counter[str], Counter[str]]:
    """What became of the model's words in whole turns, and the faults of the replies."""
    counts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for case in cases:
        turn = dialogue.turn(case.state, case.message)
        wrong += faults(dialogue, turn)
        for step in turn.trace:
            if step.startswith("the words for the list are the model's"):
                counts["said"] += 1
            elif step.startswith("the model's words for the list are not taken: "):
                counts[step.partition(": ")[2]] += 1
    return counts, wrong


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Proposals and words of a run's model.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=500, help="messages of each kind of phrases")
    parser.add_argument("--turns", type=int, default=200, help="of them, whole turns for the words")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        dialogue = Dialogue.over(Recommender.load(given.run), proposals="on")
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    assert dialogue.speaker is not None
    assert dialogue.recommender.run is not None
    data = load_task_data(dialogue.recommender.run, dialogue.recommender.item_tokens)
    found: dict[str, list[Understood]] = {}
    cases: list[Case] = []
    for name, held_out in (("trained on", False), ("held out", True)):
        source = Messages(dialogue.speaker.phrases, data, held_out=held_out)
        cases = make_cases(dialogue.index, source, count=given.count, seed=given.seed)
        found[name] = understand(dialogue, cases)
    print("\n".join([*right_table(found), "", "Held out, by slot:", "", *slot_table(found["held out"])]))
    for name, ones in found.items():
        print(f"\nProposals, {name}: {dict(count_proposals(ones))}")
    said, wrong = words_said(dialogue, cases[: given.turns])
    print(f"Words for lists: {dict(said.most_common())}")
    print(f"Faults: {dict(wrong) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
