"""Texts become a byte-level BPE tokenizer: what a base made here reads, where no downloaded model brings its own.

Text is cut into words, numbers and punctuation before merges are counted, so no merge spans two of these: a title
that holds `<|im_end|>` or `<s0_17>`, however often, never becomes one token. Control tokens exist as added tokens
alone; text is encoded without those (`vocabulary.TextEncoder`). The same texts, in whatever order, give the same
tokenizer, and every string is encoded without loss: bytes are the alphabet.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from genrec.errors import ConfigError

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
SMALLEST = 256 + len(CONTROL_TOKENS)  # the bytes and the control tokens: no merge at all

# ChatML. Content is put in as it is: whoever renders untrusted content encodes it apart, with TextEncoder.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_text_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `size` tokens for `texts` (fewer where they have fewer pairs to merge).

    `texts` is read once, so a generator over a large file will do. The end-of-sequence token is `<|im_end|>`, padding
    is `<|endoftext|>`, there is no beginning-of-sequence token. Raises ConfigError for a size below the alphabet.
    """
    if size < SMALLEST:
        raise ConfigError(
            f"a text vocabulary of {size} tokens is too small; expected {SMALLEST} at least.",
            "256 bytes and the control tokens are always in it.",
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=TURN_END, pad_token=END_OF_TEXT)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
