"""Recommend from Python with a finished run.

make demo
.venv/bin/python examples/recommend.py runs/quickstart
"""

import sys

import genrec

recommender = genrec.Recommender.load(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
star_wars, matrix = "260", "2571"

for item in recommender.recommend([star_wars, matrix], k=5):
    print(f"{item.rank}. {item.title}  ({item.score:.2f})")

print("\nOnly comedies, and not Toy Story:")
for item in recommender.recommend([star_wars, matrix], k=5, exclude=["1"], allow={"genres": "Comedy"}):
    print(f"{item.rank}. {item.title}")
