"""Semantic IDs as words of a language model: token text, token ids, embedding rows.

Code 17 on level 0 is the token `<s0_17>`: atomic, added as a *non-special* token, so that it survives
decoding to text. The tokens of a level are contiguous, so a level's part of the output matrix is one slice.
Text of users and catalogues is encoded by `TextEncoder`, which knows none of these tokens: a title that
holds `<s0_17>` becomes the letters `<`, `s`, `0`, … and can never name an item.

Items that training knows can have a second spelling, a token of their own such as `<i_3>`, right behind the semantic
IDs. A model learns to go on with a history in either spelling; the two probabilities of an item are mixed when items
are ranked (`decoding.beam`). New items, and items of another catalogue, have their semantic ID alone.

Shapes: I items, R rows of a catalogue, L levels, K codes of a level, V vocabulary, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from genrec.errors import ModelError

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

VOCABULARY_FILE = "semantic_id_vocabulary.json"


def sid_token(level: int, code: int) -> str:
    """The token text of a code on a level, such as `<s0_17>`."""
    return f"<s{level}_{code}>"


def item_token(number: int) -> str:
    """The text of the token of an item's own with this number, such as `<i_3>`."""
    return f"<i_{number}>"


@dataclass(frozen=True)
class SidVocabulary:
    """Where the semantic-ID tokens are: code `c` of level `l` has the id `first_token_ids[l] + c`.

    Where items have tokens of their own, token `n` of them is the item in row `item_rows[n]` of the catalogue.
    """

    codebook_sizes: tuple[int, ...]  # (L,)
    first_token_ids: tuple[int, ...]  # (L,)
    tokenizer_checksum: str = ""  # of the item tokenizer whose codes these are; "" = not known
    item_rows: tuple[int, ...] = ()
    items_checksum: str = ""  # of the ids of those items
    item_share: float = 0.0  # weight of the items' own tokens in an item's probability, below 1

    @property
    def first_item_token(self) -> int:
        """Token id of the first item that has one of its own: the one behind the last code."""
        return self.first_token_ids[-1] + self.codebook_sizes[-1]

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """First token id and size of what a token is one of: the codes of each level, then the items' own tokens."""
        levels = tuple(zip(self.first_token_ids, self.codebook_sizes, strict=True))
        return (*levels, (self.first_item_token, len(self.item_rows))) if self.item_rows else levels

    @property
    def span(self) -> slice:
        """From the first to behind the last token that names an item or a part of one: what no text in words has."""
        groups = self.groups or ((0, 0),)
        return slice(min(first for first, _ in groups), max(first + size for first, size in groups))

    def own_tokens(self, num_rows: int) -> NDArray[np.int64] | None:
        """Every item's own token, −1 where it has none: (R,). None where no item has one."""
        if not self.item_rows:
            return None
        tokens = np.full(num_rows, -1, dtype=np.int64)
        tokens[list(self.item_rows)] = self.first_item_token + np.arange(len(self.item_rows))
        return tokens

    def of_catalogue(self, item_ids: Sequence[str]) -> SidVocabulary:
        """This vocabulary for a catalogue: without tokens of items' own where these are other items than its rows."""
        known = self.item_rows and max(self.item_rows) < len(item_ids)
        if known and _ids_checksum(item_ids, self.item_rows) == self.items_checksum:
            return self
        return replace(self, item_rows=(), items_checksum="", item_share=0.0)

    def token_ids(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Token ids of codes (…, L), the same shape."""
        return codes.astype(np.int64) + np.asarray(self.first_token_ids, dtype=np.int64)

    def save(self, folder: Path) -> None:
        """Write the vocabulary beside the model that uses it."""
        (folder / VOCABULARY_FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> SidVocabulary:
        """Read the vocabulary of a model folder. Raises ModelError where there is none."""
        try:
            content = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
            # Models of before the checksum was kept have none; they can be used, but not be trained further.
            checksum = str(content.get("tokenizer_checksum", ""))
            return cls(
                tuple(content["codebook_sizes"]),
                tuple(content["first_token_ids"]),
                checksum,
                tuple(content.get("item_rows", ())),
                str(content.get("items_checksum", "")),
                float(content.get("item_share", 0.0)),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{folder} has no readable {VOCABULARY_FILE}: this model does not know semantic IDs.",
                "Train one with `genrec train RUN`.",
            ) from error


def extend_tokenizer(tokenizer: PreTrainedTokenizerFast, codebook_sizes: Sequence[int]) -> SidVocabulary:
    """Add the semantic-ID tokens to a tokenizer and say where they are.

    Raises ModelError where the tokenizer already knows some of them (it belongs to another catalogue).
    """
    from tokenizers import AddedToken

    tokens = [sid_token(level, code) for level, size in enumerate(codebook_sizes) for code in range(size)]
    taken = set(tokenizer.get_vocab())
    present = [token for token in tokens if token in taken]
    if present:
        raise ModelError(
            f"the base tokenizer already has semantic-ID tokens ({present[0]} and {len(present) - 1} others).",
            "Start from a base model that was not trained for another catalogue.",
        )
    # Not special: skip_special_tokens must keep them. Not normalised, and no stripping of neighbours:
    # " <s0_17>" and "<s0_17>" are different texts, and only the second is in the trie.
    added = [AddedToken(token, normalized=False, special=False) for token in tokens]
    tokenizer.add_tokens(cast(Any, added))
    ids = cast(list[int], tokenizer.convert_tokens_to_ids(tokens))
    first = ids[0]
    if ids != list(range(first, first + len(tokens))):
        raise ModelError("the tokenizer did not give contiguous ids to the semantic-ID tokens.")
    offsets = np.concatenate([[0], np.cumsum(codebook_sizes)[:-1]])
    return SidVocabulary(tuple(codebook_sizes), tuple(int(first + offset) for offset in offsets))


def inherited_vocabulary(
    folder: Path, tokenizer: PreTrainedTokenizerFast, *, codebook_sizes: Sequence[int], tokenizer_checksum: str
) -> SidVocabulary | None:
    """The semantic-ID tokens that a base model already has, if they mean what this run's codes mean.

    None where the folder has no semantic-ID vocabulary. Raises ModelError where its tokens belong to another
    item tokenizer (another checksum or other codebooks): the same token would name other items.
    """
    if not (folder / VOCABULARY_FILE).is_file():
        return None
    known = SidVocabulary.load(folder)
    if known.tokenizer_checksum != tokenizer_checksum or known.codebook_sizes != tuple(codebook_sizes):
        theirs = known.tokenizer_checksum[:12] or "unknown"
        raise ModelError(
            f"the base tokenizer already has semantic-ID tokens of another item tokenizer: {folder} has codebooks "
            f"{known.codebook_sizes} and checksum {theirs}, this run {tuple(codebook_sizes)} and "
            f"{tokenizer_checksum[:12]}.",
            "Start from a base model that was not trained for another catalogue, or tokenize this run with the "
            "base's tokenizer: `genrec tokenize RUN --from SOURCE`.",
        )
    for level, (first, size) in enumerate(zip(known.first_token_ids, known.codebook_sizes, strict=True)):
        ends = tokenizer.convert_tokens_to_ids([sid_token(level, 0), sid_token(level, size - 1)])
        if ends != [first, first + size - 1]:
            raise ModelError(f"{folder / VOCABULARY_FILE} does not fit the tokenizer beside it.", "Train it again.")
    return known


def extend_with_items(
    tokenizer: PreTrainedTokenizerFast,
    vocabulary: SidVocabulary,
    *,
    item_ids: Sequence[str],
    rows: NDArray[np.integer[Any]],
    share: float,
) -> SidVocabulary:
    """The vocabulary with a token of their own for the items in `rows` of a catalogue; the tokenizer gets them.

    Those that a base has for other items are taken over, their rows are to be started anew. Raises ModelError where
    the tokens cannot stand right behind the semantic IDs, as they do not where a soft prompt was trained in between.
    """
    from tokenizers import AddedToken

    tokens = [item_token(number) for number in range(len(rows))]
    tokenizer.add_tokens(cast(Any, [AddedToken(token, normalized=False, special=False) for token in tokens]))
    ids = cast(list[int], tokenizer.convert_tokens_to_ids(tokens))
    if ids != list(range(vocabulary.first_item_token, vocabulary.first_item_token + len(tokens))):
        raise ModelError(
            "the base has other tokens where the items' own would be.",
            "Set item_share: 0, or start from a base that was not trained with a soft prompt.",
        )
    numbers = tuple(int(row) for row in rows)
    return replace(
        vocabulary, item_rows=numbers, items_checksum=_ids_checksum(item_ids, numbers), item_share=float(share)
    )


def soft_token(number: int) -> str:
    """The token text of a place of a soft prompt, such as `<soft_0>`."""
    return f"<soft_{number}>"


def extend_with_soft_prompt(tokenizer: PreTrainedTokenizerFast, num_tokens: int) -> list[int]:
    """Add the tokens of a soft prompt, or find those that are there; their ids in order.

    Raises ModelError where the tokenizer has a soft prompt of another length.
    """
    from tokenizers import AddedToken

    known = len(soft_prompt(tokenizer))
    if known not in (0, num_tokens):
        raise ModelError(
            f"the base has a soft prompt of {known} tokens, and {num_tokens} are asked for.",
            f"Set prompt_tokens: {known} to train it further.",
        )
    tokens = [soft_token(number) for number in range(num_tokens)]
    # Special, unlike semantic IDs: nobody wants to read them.
    tokenizer.add_tokens(cast(Any, [AddedToken(token, normalized=False, special=True) for token in tokens]))
    return soft_prompt(tokenizer)


def soft_prompt(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the learned tokens that stand before every prompt; empty where the model has none."""
    vocabulary = tokenizer.get_vocab()
    ids: list[int] = []
    while (token := soft_token(len(ids))) in vocabulary:
        ids.append(vocabulary[token])
    return ids


def opening_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What every prompt begins with: the beginning of sequence, where the tokenizer writes one, then the soft prompt.

    Some have a `bos_token` that they never write: that of SmolLM2's chat models opens a turn.
    """
    start = tokenizer.bos_token_id
    written = start is not None and tokenizer("a", add_special_tokens=True)["input_ids"][:1] == [start]
    return [*([cast(int, start)] if written else []), *soft_prompt(tokenizer)]


_WORDS_AT_ONCE = 1 << 16
_SPACES = " \n\r\t▁"


def inner_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """The whole tokenizer, control tokens included, for pieces of a text: no space is put before one."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(_without_first_space(json.loads(tokenizer.backend_tokenizer.to_str()))))


def _without_first_space(description: Any) -> Any:
    """A tokenizer's description without what Llama's and Mistral's put before a text, and GPT's may."""
    if isinstance(description, list):
        return [_without_first_space(part) for part in description if not _prepends(part)]
    if not isinstance(description, dict) or "vocab" in description:
        return description
    changed = {name: None if _prepends(part) else _without_first_space(part) for name, part in description.items()}
    changed |= {"prepend_scheme": "never"} if "prepend_scheme" in changed else {}
    return changed | ({"add_prefix_space": False} if "add_prefix_space" in changed else {})


def _prepends(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "Prepend"


class TextEncoder:
    """Encodes untrusted text with a tokenizer stripped of every added token, so text stays text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        from tokenizers import Tokenizer

        description = json.loads(tokenizer.backend_tokenizer.to_str())
        # Gemma's line breaks and runs of spaces are added tokens as well, and control nothing.
        self._control_ids = {
            entry["id"] for entry in description["added_tokens"] if entry["special"] or entry["content"].strip(_SPACES)
        }
        description["added_tokens"] = []
        description["post_processor"] = None
        description["truncation"] = None
        description["padding"] = None
        self._tokenizer = Tokenizer.from_str(json.dumps(_without_first_space(description)))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, none of them a control or semantic-ID token."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        # Some models keep control tokens in the base vocabulary as well; drop them rather than obey them.
        return [token for token in ids if token not in self._control_ids]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of several texts."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[token for token in enc.ids if token not in self._control_ids] for enc in encodings]


def add_embedding_rows(
    model: PreTrainedModel,
    vocabulary: SidVocabulary,
    *,
    codes: NDArray[np.integer[Any]],
    item_tokens: Sequence[Sequence[int]],
    seed: int,
    groups: slice = slice(None),
) -> None:
    """Grow a model's embedding (and output) matrix by rows for `groups` of the vocabulary, and start them sanely.

    A code's row starts at the mean of the words of the items under it, scaled to the length of an ordinary
    row, with a little noise so that no two codes start equal. `codes` holds what items have in each of these groups,
    −1 for nothing, (I, groups); `item_tokens` the token ids of each item's text.
    """
    import torch

    chosen = vocabulary.groups[groups]
    first, last = vocabulary.first_token_ids[0], sum(chosen[-1])
    rows_before = cast(Any, model.get_input_embeddings()).weight.shape[0]
    if rows_before < last:
        model.resize_token_embeddings(last, mean_resizing=False)
    known = min(first, rows_before)
    matrices: list[torch.Tensor] = [cast(Any, model.get_input_embeddings()).weight]
    output: Any = model.get_output_embeddings()
    if output is not None and output.weight is not matrices[0]:
        matrices.append(output.weight)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for matrix in matrices:
            if known < first:  # words without a row: transformers drew them from the generator of the process
                matrix[known:first] = matrix[:known].float().mean(dim=0).to(matrix)
            words = matrix[:first].float().cpu()  # a quantised base lies on the accelerator
            for level, (start, size) in enumerate(chosen):
                rows = _code_means(words, codes[:, level], item_tokens, size)
                noise = torch.randn(rows.shape, generator=generator)
                matrix[start : start + size] = _scaled_like(words, rows, noise).to(matrix)


def add_soft_prompt_rows(model: PreTrainedModel, ids: Sequence[int], *, num_words: int, seed: int) -> None:
    """Rows for a soft prompt, each a copy of a drawn word's row, which trains better than noise (Lester et al. 2021,
    sec. 3.2). The first `num_words` rows are words."""
    import torch

    if cast(Any, model.get_input_embeddings()).weight.shape[0] <= max(ids):
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    words = np.random.default_rng(seed).choice(num_words, size=len(ids), replace=len(ids) > num_words)
    matrix: torch.Tensor = cast(Any, model.get_input_embeddings()).weight
    with torch.no_grad():
        matrix[list(ids)] = matrix[words.tolist()]


def _code_means(
    words: torch.Tensor, codes: NDArray[np.integer[Any]], item_tokens: Sequence[Sequence[int]], size: int
) -> torch.Tensor:
    """Mean word vector of the items under each code, (K, D); zero where a code has no items or no words."""
    import torch

    owners = np.repeat(codes.astype(np.int64), [len(tokens) for tokens in item_tokens])
    tokens = np.fromiter((token for item in item_tokens for token in item), dtype=np.int64, count=len(owners))
    owners, tokens = owners[owners >= 0], tokens[owners >= 0]
    owner, token = torch.from_numpy(owners), torch.from_numpy(tokens)
    sums = torch.zeros(size, words.shape[1])
    for some, theirs in zip(owner.split(_WORDS_AT_ONCE), token.split(_WORDS_AT_ONCE), strict=True):
        sums.index_add_(0, some, words[theirs])
    counts = torch.bincount(owner, minlength=size).clamp(min=1)
    return sums / counts[:, None]


def _scaled_like(words: torch.Tensor, rows: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Half the energy from the content and half from noise, at the mean length of a word's row."""
    length = words.norm(dim=1).mean()
    content = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    noise = noise / noise.norm(dim=1, keepdim=True)
    mixed = content + noise
    started: torch.Tensor = mixed / mixed.norm(dim=1, keepdim=True) * length
    return started


def _ids_checksum(item_ids: Sequence[str], rows: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(item_ids[row].encode() + b"\0")
    return digest.hexdigest()
