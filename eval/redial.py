"""What a run recommends in ReDial's test turns, beside popularity and item-kNN on the mentioned films.

    python eval/redial.py RUN DATA/redial_test_turns.jsonl.gz [--conversation 300] [--beam-width 50]

Prints a Markdown table of Recall@1/10/50 (genrec/chat/measuring.py has the protocol): of all recommended films, and
of those that the run's catalogue has. Where the run has dialogues (`genrec dialogues`), baselines that count them, the
model asked with the words of the conversation (task F2) and evidence of dialogues are rows, too; `--validation` asks
about the dialogues that the run kept for validation and counts those of the training part alone; evidence, which has
learned from the validation part, is no row then. `--conversation N`
also holds the first N turns as conversations, and counts replies with an item that does not exist, the same item
twice, or a title that was not decoded, and how often an opener without content is asked back.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.base import item_counts
from genrec.baselines.item_knn import ItemKNN
from genrec.chat import ChatState, Dialogue
from genrec.chat.measuring import DialogueCase, best_rows, dialogue_cases, recall
from genrec.data.dialogues import DialogueTurn, item_sequences, load_turns, read_turns
from genrec.data.sequences import Sequences
from genrec.data.splits import cold_items, training_sequences
from genrec.errors import GenrecError
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run
from genrec.task_evaluation import dialogue_prompts
from genrec.trie_filters import ItemFilter

CUTOFFS = (1, 10, 50)
EMPTY_OPENERS = ("Hi", "Hello!", "hey there", "Good morning", "Hi, how are you?", "hello, can you help me?", "Hey :)")


def popularity_answers(counts: NDArray[np.float64], cases: Sequence[DialogueCase]) -> list[list[int]]:
    """The 50 most counted films of every case, without mentioned ones. `counts` is (I,)."""
    return [best_rows(counts, case.mentioned, CUTOFFS[-1]) for case in cases]


def knn_answers(sequences: Sequences, num_items: int, cases: Sequence[DialogueCase]) -> list[list[int]]:
    """Item-kNN's 50 best of every case, without mentioned films; popularity orders what it knows nothing about."""
    baseline, often = ItemKNN(), item_counts(sequences, num_items).astype(np.float64)
    baseline.fit(sequences, num_items, seed=0)
    histories = [np.asarray(case.mentioned, dtype=np.int32) for case in cases]
    answers: list[list[int]] = []
    for start in range(0, len(cases), 256):
        scores = baseline.scores(histories[start : start + 256])
        part = cases[start : start + 256]
        rows = [row + _less_than_any_difference(row) * often / (1 + often.max()) for row in scores.astype(np.float64)]
        answers += [best_rows(row, case.mentioned, CUTOFFS[-1]) for row, case in zip(rows, part, strict=True)]
    return answers


def _less_than_any_difference(scores: NDArray[np.float64]) -> float:
    different = np.diff(np.unique(scores))
    return float(different.min()) / 2 if len(different) else 1.0


def baseline_rows(
    run: Run, turns: Sequence[DialogueTurn], cases: Sequence[DialogueCase], *, num_items: int
) -> dict[str, list[list[int]]]:
    """Popularity and item-kNN, counting ratings alone and, where there are `turns`, dialogues too."""
    users = training_sequences(run)
    popularity = item_counts(users, num_items).astype(np.float64)
    rows = {
        "popularity": popularity_answers(popularity, cases),
        "item-kNN on mentioned films": knn_answers(users, num_items, cases),
    }
    if turns:
        named = item_sequences(turns, ~cold_items(run))
        both = Sequences.from_lists(
            [*users.user_ids, *named.user_ids], [list(one) for part in (users, named) for one in part]
        )
        # Ratings decide between films that dialogues name equally often.
        often = item_counts(named, num_items) + popularity / (1 + popularity.max())
        rows["popularity in dialogues"] = popularity_answers(often, cases)
        rows["item-kNN, dialogues counted too"] = knn_answers(both, num_items, cases)
    return rows


def model_rows(
    run: Run, recommender: Recommender, cases: Sequence[DialogueCase], *, seen: bool
) -> dict[str, list[list[int]]]:
    """The model after mentioned films, alone and with what the run has of evidence; asked with words if it knows F2.

    `seen` leaves out evidence of dialogues: it counts these, and was fitted on most of them.
    """
    requests = [RankRequest(np.asarray(case.mentioned, dtype=np.int32)) for case in cases]

    def ranked(asked: Recommender, *, in_dialogue: bool = False) -> list[list[int]]:
        found = asked.rank([replace(request, in_dialogue=in_dialogue) for request in requests], CUTOFFS[-1])
        return [[item.item_index for item in one] for one in found]

    rows = {"the model alone": ranked(recommender.with_evidence(None))}
    if "F2" in run.stages["train"].config["tasks"]:
        prompts = dialogue_prompts(run, recommender, [case.turn for case in cases])
        filters = [ItemFilter.excluding(recommender.trie, request.history) for request in requests]
        rows["the model alone, asked with words"] = [
            [item.item_index for item in one]
            for start in range(0, len(cases), 64)
            for one in recommender.engine.rank(
                prompts[start : start + 64],
                recommender.trie,
                beam_width=max(recommender.beam_width, CUTOFFS[-1]),
                k=CUTOFFS[-1],
                allowed=filters[start : start + 64],
            )
        ]
    if recommender.evidence is not None:
        rows["the model with evidence of users"] = ranked(recommender)
    if recommender.live.dialogue_evidence is not None and not seen:
        rows["the model with evidence of dialogues"] = ranked(recommender, in_dialogue=True)
    return rows


def conversation_checks(dialogue: Dialogue, cases: Sequence[DialogueCase]) -> Counter[str]:
    """Hold dialogues as conversations and count acts and faults of the last reply."""
    counts: Counter[str] = Counter()
    catalog = dialogue.index.catalog
    for case in cases:
        state = ChatState()
        for line in case.turn.context[:-1]:
            state = dialogue.finish(dialogue.plan(state, line), []).state
        turn = dialogue.turn(state, case.turn.context[-1] if case.turn.context else "")
        slots = [part for part in turn.segments if part.item_id is not None]
        counts[f"act {turn.act}"] += 1
        counts["invalid items"] += sum(item not in catalog.index for item in turn.item_ids)
        counts["replies with an item twice"] += len(set(turn.item_ids)) < len(turn.item_ids)
        counts["ungrounded titles"] += sum(
            part.text != catalog.titles[catalog.index[str(part.item_id)]] for part in slots
        )
    return counts


def asks_back(dialogue: Dialogue) -> str:
    """How many openers without content are answered with a question."""
    asked = sum(dialogue.turn(ChatState(), opener).act == "ask" for opener in EMPTY_OPENERS)
    return f"{asked} of {len(EMPTY_OPENERS)}"


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Recall on ReDial's test turns.")
    parser.add_argument("run", type=Path)
    parser.add_argument("turns", type=Path, nargs="?")
    parser.add_argument(
        "--validation", action="store_true", help="the run's own validation dialogues in place of a file"
    )
    parser.add_argument("--beam-width", type=int, default=50)
    parser.add_argument("--conversation", type=int, default=0)
    given = parser.parse_args()
    if (given.turns is None) != given.validation:
        parser.error("give a file of turns, or --validation")
    try:
        run, recommender = Run.open(given.run), Recommender.load(given.run, beam_width=given.beam_width)
        dialogue = Dialogue.over(recommender)
        catalog = recommender.catalog
        turns = load_turns(run, "train" if given.validation else None, catalog=catalog)
        if given.validation:
            cases = [DialogueCase(turn, 0) for turn in load_turns(run, "validation", catalog=catalog)]
        else:
            cases = dialogue_cases(dialogue.index, read_turns(given.turns))
        rows = baseline_rows(run, turns, cases, num_items=len(catalog))
        rows |= model_rows(run, recommender, cases, seen=given.validation)
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
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
        print(f"  openers without content asked back: {asks_back(dialogue)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
