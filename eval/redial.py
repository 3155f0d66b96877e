"""What a run recommends in ReDial's test turns, beside popularity and item-kNN on the mentioned films.

    python eval/redial.py RUN DATA/redial_test_turns.jsonl.gz [--conversation 300] [--beam-width 50]

Prints a Markdown table of Recall@1/10/50 (genrec/chat/measuring.py has the protocol): of all recommended films, and
of those that the run's catalogue has. `--conversation N` also holds the first N turns as conversations, and counts
replies with an item that does not exist, the same item twice, or a title that was not decoded.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genrec.baselines.item_knn import ItemKNN
from genrec.baselines.popularity import Popularity
from genrec.chat import ChatState, Dialogue
from genrec.chat.measuring import DialogueCase, best_rows, dialogue_cases, recall
from genrec.data.splits import training_sequences
from genrec.errors import GenrecError
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run

CUTOFFS = (1, 10, 50)


def baseline_answers(run: Run, baseline: Popularity | ItemKNN, cases: Sequence[DialogueCase]) -> list[list[int]]:
    """The baseline's 50 best of every case, without mentioned films."""
    sequences = training_sequences(run)
    num_items = int(run.require("ingest", verify=False).report["num_items"])
    baseline.fit(sequences, num_items, seed=0)
    histories = [np.asarray(case.mentioned, dtype=np.int32) for case in cases]
    answers: list[list[int]] = []
    for start in range(0, len(cases), 256):
        scores = baseline.scores(histories[start : start + 256])
        part = cases[start : start + 256]
        answers += [best_rows(row, case.mentioned, CUTOFFS[-1]) for row, case in zip(scores, part, strict=True)]
    return answers


def conversation_checks(dialogue: Dialogue, cases: Sequence[DialogueCase]) -> Counter[str]:
    """Hold dialogues as conversations and count acts and faults of the last reply."""
    counts: Counter[str] = Counter()
    catalog = dialogue.index.catalog
    for case in cases:
        state = ChatState()
        for line in case.context[:-1]:
            state = dialogue.finish(dialogue.plan(state, line), []).state
        turn = dialogue.turn(state, case.context[-1] if case.context else "")
        slots = [part for part in turn.segments if part.item_id is not None]
        counts[f"act {turn.act}"] += 1
        counts["invalid items"] += sum(item not in catalog.index for item in turn.item_ids)
        counts["replies with an item twice"] += len(set(turn.item_ids)) < len(turn.item_ids)
        counts["ungrounded titles"] += sum(
            part.text != catalog.titles[catalog.index[str(part.item_id)]] for part in slots
        )
    return counts


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Recall on ReDial's test turns.")
    parser.add_argument("run", type=Path)
    parser.add_argument("turns", type=Path)
    parser.add_argument("--beam-width", type=int, default=50)
    parser.add_argument("--conversation", type=int, default=0)
    given = parser.parse_args()
    try:
        run, recommender = Run.open(given.run), Recommender.load(given.run, beam_width=given.beam_width)
        dialogue = Dialogue.over(recommender)
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    with gzip.open(given.turns, "rt", encoding="utf-8") as lines:
        cases = dialogue_cases(dialogue.index, map(json.loads, lines))
    requests = [RankRequest(np.asarray(case.mentioned, dtype=np.int32)) for case in cases]
    ranked = recommender.rank(requests, CUTOFFS[-1])
    rows = {
        "popularity": baseline_answers(run, Popularity(), cases),
        "item-kNN on mentioned films": baseline_answers(run, ItemKNN(), cases),
        "the model, after mentioned films": [[item.item_index for item in one] for one in ranked],
    }
    known = sum(len(case.targets) for case in cases)
    total = known + sum(case.num_unknown for case in cases)
    print(
        f"{len(cases):,} turns, {total:,} recommended films, {known:,} of them in the catalogue ({known / total:.1%})\n"
    )
    print("| | R@1 | R@10 | R@50 | in the catalogue: R@1 | R@10 | R@50 |\n|---|---|---|---|---|---|---|")
    for name, answers in rows.items():
        pairs = [recall(cases, answers, k) for k in CUTOFFS]
        print(f"| {name} | " + " | ".join(f"{pair[part]:.3f}" for part in (0, 1) for pair in pairs) + " |")
    if given.conversation:
        counts = conversation_checks(dialogue, cases[: given.conversation])
        print(f"\nheld as conversations: {min(given.conversation, len(cases))} turns")
        print("\n".join(f"  {name}: {count}" for name, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
