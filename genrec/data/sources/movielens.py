"""MovieLens: a folder or a `.zip` as GroupLens publishes them (latest-small … 25M, and 1M's `.dat` files).

"Matrix, The (1999)" becomes the title "The Matrix" and the year 1999. Tags are what users wrote, some of
them after the interactions that are to be predicted: they are kept as an attribute and are no default text.

A folder may hold two things more, which GroupLens does not publish: `posters/` with one picture per film, named by
its movieId, and `omdb_text.jsonl` with `movieId`, `plot`, `director` and `actors`.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genrec.config import IngestConfig
from genrec.data.sources.cells import BadCellError, InputLog, parse_id, parse_list, parse_text
from genrec.data.sources.records import Item, RawData, read_interactions, read_items, require_columns
from genrec.data.sources.rows import InputFile, columns_of, read_rows
from genrec.errors import ConfigError, DataError
from genrec.progress import Progress

_MAX_TAGS = 10  # the most frequent ones of a film
_DAT_COLUMNS = {
    "ratings": ("userId", "movieId", "rating", "timestamp"),
    "movies": ("movieId", "title", "genres"),
    "tags": ("userId", "movieId", "tag", "timestamp"),
}
_ENDINGS = (".csv", ".csv.gz", ".dat")
_PLOTS = "omdb_text.jsonl"
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_YEAR = re.compile(r"^(?P<title>.*\S)\s*\((?P<year>\d{4})(?:[-–]\d{0,4})?\)$")
_ARTICLE = re.compile(
    r"^(?P<title>[^(]*\S), (?P<article>The|An?|Les?|La|L'|Las|Los|El|Il|Lo|Der|Die|Das|Den|Det|Une?)"
    r"(?P<rest>$| \(.*)"
)


def read(paths: Sequence[Path], config: IngestConfig, *, log: InputLog, progress: Progress) -> RawData:
    """Read ratings and movies, and tags and links where they are. Raises DataError where one is missing."""
    if len(paths) != 1:
        raise ConfigError(f"`movielens` reads one folder or .zip and got {len(paths)} paths.", "Name the folder.")
    ratings, movies = _find(paths[0], "ratings"), _find(paths[0], "movies")
    tags, links = _find_optional(paths[0], "tags"), _find_optional(paths[0], "links")
    require_columns(movies, columns_of(movies), needed=("movieId", "title", "genres"), what="movies")
    require_columns(ratings, columns_of(ratings), needed=("userId", "movieId", "rating", "timestamp"), what="ratings")
    names = {"movieId": "item_id", "title": "title", "genres": "genres"}
    films = read_items(
        movies,
        names,
        log=log,
        keep_others=False,
        title_required=config.empty_title == "stop",
        progress=progress,
    )
    items = [_film(film) for film in films]
    by_id = {item["item_id"]: item for item in items}
    if tags is not None:
        _add_tags(by_id, tags, log, progress)
    if links is not None:
        _add_links(by_id, links, log)
    interactions = read_interactions(
        ratings,
        {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "timestamp"},
        log=log,
        known_items=by_id,
        items_name=movies.name,
        progress=progress,
    )
    plots = InputFile(paths[0] / _PLOTS) if (paths[0] / _PLOTS).is_file() else None
    if plots is not None:
        _add_plots(by_id, plots, log)
    files = {file.path: None for file in (ratings, movies, tags, links, plots) if file is not None}
    facts, words = _add_posters(by_id, paths[0])
    return RawData(items, interactions, list(files), facts=facts, words=words)


def _add_plots(items: dict[str, Item], file: InputFile, log: InputLog) -> None:
    require_columns(file, columns_of(file), needed=("movieId", "plot"), what="plots")
    for item in items.values():
        item |= {"description": None, "director": None, "actors": []}
    parsers: dict[str, tuple[str, Callable[[Any, InputLog], Any]]] = {
        "plot": ("description", parse_text),
        "director": ("director", parse_text),
        "actors": ("actors", _actors),
    }
    for number, row in read_rows(file, log):
        column = "movieId"
        try:
            film = items.get(parse_id(row.get(column)), {})
            for column, (name, parse) in parsers.items():
                film[name] = parse(row.get(column), log)
        except BadCellError as error:
            log.reject(file.name, number, found=error.found, expected=error.expected, column=column)


def _actors(value: Any, log: InputLog) -> list[str]:
    return parse_list(value.split(",") if isinstance(value, str) else value, log)


def _add_posters(items: dict[str, Item], root: Path) -> tuple[dict[str, Any], list[str]]:
    """Give films their picture; what the report of `ingest` says about it."""
    folder = root / "posters"
    if not folder.is_dir():
        return {}, []
    pictures = {path.stem: path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in _PICTURES}
    for item_id, item in items.items():
        item["image"] = f"posters/{pictures[item_id]}" if item_id in pictures else None
    found = len(pictures.keys() & items.keys())
    words = [f"Posters: {found:,} of {len(items):,} films have one; `genrec embed --image …` reads them."]
    return {"media_root": str(root.resolve())}, words


def bundled_movielens() -> Path:
    """The folder of MovieLens latest-small in this repository. Raises DataError outside a checkout."""
    folder = Path(__file__).resolve().parents[3] / "examples" / "movielens-latest-small"
    if not folder.is_dir():
        raise DataError(
            f"The bundled films are not there: {folder} does not exist. They travel with the repository, "
            "not with an installed package.",
            "Run from a git checkout, or get ml-latest-small from grouplens.org and use "
            "`genrec ingest movielens FOLDER --out RUN`.",
        )
    return folder


def _find(root: Path, stem: str) -> InputFile:
    found = _find_optional(root, stem)
    if found is None:
        names = " or ".join(stem + ending for ending in _ENDINGS)
        raise DataError(f"{root} holds no {names}.", "Name the folder or .zip of MovieLens as it is published.")
    return found


def _find_optional(root: Path, stem: str) -> InputFile | None:
    """The file of a name in a folder or a .zip (at any depth)."""
    names = [stem + ending for ending in _ENDINGS]
    columns = _DAT_COLUMNS.get(stem, ())
    if root.is_dir():
        found = [InputFile(root / name, "", columns) for name in names if (root / name).is_file()]
    else:
        found = [
            InputFile(root, member, columns)
            for member in _zip_members(root)
            if member.rsplit("/", 1)[-1] in names and "__MACOSX" not in member and not member.endswith(".gz")
        ]
    return found[0] if found else None


def _zip_members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is neither a folder nor a whole .zip file.", "Copy or download it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error


def _film(item: Item) -> Item:
    title, year = split_title(item["title"] or "")
    genres = [genre for genre in item["genres"] if genre != "(no genres listed)"]
    return {**item, "title": title, "genres": genres, "year": year}


def split_title(text: str) -> tuple[str, int | None]:
    """ "Matrix, The (1999)" → ("The Matrix", 1999). Titles in other languages, in brackets, stay as they are."""
    match = _YEAR.match(text)
    title, year = (match["title"], int(match["year"])) if match else (text, None)
    article = _ARTICLE.match(title)
    if article:
        space = "" if article["article"].endswith("'") else " "
        title = f"{article['article']}{space}{article['title']}{article['rest']}"
    return title, year


def _add_tags(items: dict[str, Item], file: InputFile, log: InputLog, progress: Progress) -> None:
    require_columns(file, columns_of(file), needed=("movieId", "tag"), what="tags")
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for _, row in read_rows(file, log, progress=progress):
        tag = log.clean(row["tag"]).lower()
        if tag and row["movieId"] in items:
            counts[row["movieId"]][tag] += 1
    for item_id, item in items.items():
        # Counter.most_common keeps the order of appearance among equals.
        item["tags"] = [tag for tag, _ in counts[item_id].most_common(_MAX_TAGS)]


def _add_links(items: dict[str, Item], file: InputFile, log: InputLog) -> None:
    require_columns(file, columns_of(file), needed=("movieId",), what="links")
    for _, row in read_rows(file, log):
        if row["movieId"] in items:
            items[row["movieId"]]["imdb_id"] = row.get("imdbId") or None
            items[row["movieId"]]["tmdb_id"] = row.get("tmdbId") or None
