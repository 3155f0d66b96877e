"""Simulated users look for a film that only they know: how soon does a conversation show it?

    python eval/simulated_user.py RUN [--users 300] [--turns 6] [--least 20] [--seed 0]

A user of the test split names films that it liked, then facts of its test film (genres, decade), then what it does not
want; it never names the film (genrec/chat/simulation.py). The same dialogue is held over the model with its evidence,
the model alone, item-kNN and popularity on what was named. Prints success by turn with 95 % bootstrap intervals, and
audits every line that was said: a transcript with a leak is an error, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genrec.baselines.base import item_counts
from genrec.baselines.item_knn import ItemKNN
from genrec.chat import Dialogue
from genrec.chat.simulation import Ranker, Search, SimulatedUser, Transcript, audit, converse, ranked_by
from genrec.data.sequences import EvaluationCases
from genrec.data.splits import evaluation_cases, training_sequences
from genrec.errors import GenrecError
from genrec.recommender import Recommender
from genrec.run import Run

BOOTSTRAP_SAMPLES = 2000


def rankers(run: Run, recommender: Recommender) -> dict[str, Ranker]:
    """Who answers: each ranks for one request, under its filters."""
    sequences, num_items = training_sequences(run), len(recommender.catalog)
    popularity = item_counts(sequences, num_items).astype(np.float64)
    knn = ItemKNN()
    knn.fit(sequences, num_items, seed=0)
    alone, trie = recommender.with_evidence(None), recommender.trie
    return {
        "the model with evidence": lambda request, k: recommender.rank([request], k)[0],
        "the model alone": lambda request, k: alone.rank([request], k)[0],
        "item-kNN": lambda request, k: ranked_by(knn.scores([request.history])[0], trie, request, k),
        "popularity": lambda request, k: ranked_by(popularity, trie, request, k),
    }


def hold(
    dialogue: Dialogue, cases: EvaluationCases, *, rank: Ranker, turns: int, least: int, seed: int
) -> list[Transcript]:
    """One conversation per case. Equal seeds make users who have the same in mind, whoever answers."""
    found = []
    for number in range(len(cases)):
        search = Search(tuple(cases.histories[number].tolist()), int(cases.targets[number]))
        user = SimulatedUser(dialogue.index, search, least=least, rng=np.random.default_rng((seed, number)))
        found.append(converse(dialogue, user, search.target, rank=rank, turns=turns))
    return found


def success(transcripts: Sequence[Transcript], turn: int) -> str:
    """The share of conversations that showed the target by a turn, with its interval."""
    hits = np.array([0 < one.found <= turn for one in transcripts], dtype=np.float64)
    drawn = np.random.default_rng(0).integers(0, len(hits), size=(BOOTSTRAP_SAMPLES, len(hits)))
    low, high = np.quantile(hits[drawn].mean(axis=1), [0.025, 0.975])
    return f"{hits.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> int:
    """Read the command line, converse, audit, print."""
    parser = argparse.ArgumentParser(description="Simulated users who look for one film.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--least", type=int, default=20, help="films that must fit everything that a user says")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        run, recommender = Run.open(given.run), Recommender.load(given.run)
        dialogue = Dialogue.over(recommender)
        cases = evaluation_cases(run, "test").sample(given.users, seed=given.seed)
        held = {
            name: hold(dialogue, cases, rank=rank, turns=given.turns, least=given.least, seed=given.seed)
            for name, rank in rankers(run, recommender).items()
        }
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(
        f"| {len(cases)} users, 5 films a turn | "
        + " | ".join(f"by turn {turn + 1}" for turn in range(given.turns))
        + " |"
    )
    print("|---" * (given.turns + 1) + "|")
    for name, transcripts in held.items():
        print(f"| {name} | " + " | ".join(success(transcripts, turn + 1) for turn in range(given.turns)) + " |")
    leaks = [
        f"{name}, user {cases.user_ids[number]}: {problem}"
        for name, transcripts in held.items()
        for number, transcript in enumerate(transcripts)
        for problem in audit(dialogue.index, transcript.lines, int(cases.targets[number]), least=given.least)
    ]
    num_lines = sum(len(transcript.lines) for transcripts in held.values() for transcript in transcripts)
    print("\n".join([f"\naudited {num_lines:,} lines: {len(leaks)} leaks", *leaks[:10]]))
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
