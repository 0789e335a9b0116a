"""Captions that a tokenizer must not stumble over, and any number of seeded ones; no library is needed."""

import random

ODD = (
    "",
    " ",
    "\n\t ",
    "a",
    "A",
    "a photo of a cat",
    "A PHOTO of a Cat.",
    "x" * 10_000,
    "word " * 2_000,
    "🐈",
    "a 🐈‍⬛ and 👩‍👩‍👧‍👦, 👍🏽!",
    "قطة سوداء على سطح",
    "שלום עולם",
    "黒い猫",
    "ひらがなカタカナ",
    "한국어 고양이",
    "кот на крыше",
    "ὈΔΥΣΣΕΎΣ",
    "İstanbul ıſ ß ẞ",
    "ﬁne ﬂuﬀ",
    "é vs e\u0301",
    "Å vs A\u030a",
    "a\u200bb\ufeffc",
    "NUL\x00in the middle",
    "\x00",
    "\x01\x02\x7f",
    "tabs\tand\nlines\r\n",
    "no\u00a0break\u3000spaces\u2028",
    "&amp;amp; &lt;b&gt; &#39;quoted&#39; &nbsp; &unknown;",
    "don't they've I'll we'd he's you're I'm",
    "DON'T",
    "“curly” ‘quotes’ – dashes — and… dots",
    "schÃ¶n â€œquotedâ€\u009d",
    "cafÃ©",
    "100% of 3.14 is 2/3 + 1e-5",
    "snake_case and kebab-case",
    "!!!???...,,,;;;",
    "#hash @at $1 ^ & * ( ) [ ] { } | ~ `",
    "http://a.b/c?d=e&f=g",
    "<|startoftext|> a cat <|endoftext|> and more",
    "<start_of_text>a<end_of_text>",
    "!<start_of_text>",
    "<|ENDOFTEXT|>",
    "</s>",
    "a </s> b",
    "<unk> c",
    "<s>",
    "<pad>",
    "<bos> and <eos>",
    "▁underlined▁",
    "▁",
    "_",
    "__a_",
    "\ud7ff\ue000\U0010ffff",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛",
    "Ⅷ ½ ² ①",
    "ǅ ǆ Ǆ",
    "'ſ 'S '",
)
_WORDS = [
    "a",
    "an",
    "the",
    "photo",
    "picture",
    "drawing",
    "icon",
    "of",
    "with",
    "and",
    "on",
    "in",
    "cat",
    "dog",
    "bird",
    "house",
    "tree",
    "red",
    "blue",
    "green",
    "large",
    "small",
    "Two",
    "THREE",
    "shutterstock",
    "flower's",
    "isn't",
    "they'll",
    "blue-green",
    "1990s",
    "4K",
    "e.g.",
    "Zürich",
    "naïve",
    "coöperate",
]
_BLOCKS = ((32, 127), (160, 600), (880, 1300), (1424, 1800), (2304, 2432), (4352, 4400), (8192, 8400),
           (12288, 12600), (19968, 20400), (44032, 44300), (127744, 128600), (0, 32))  # fmt: skip


def captions(count: int, seed: int = 0) -> list[str]:
    """The odd ones, and so many more that there are `count`."""
    draw = random.Random(seed)
    found = list(ODD)
    while len(found) < count:
        parts = []
        for _ in range(draw.randint(1, 12)):
            if draw.random() < 0.75:
                word = draw.choice(_WORDS)
                parts.append(draw.choice((word, word, word.upper(), word.title())))
            else:
                first, last = draw.choice(_BLOCKS)
                parts.append("".join(chr(draw.randrange(first, last)) for _ in range(draw.randint(1, 8))))
        found.append(draw.choice((" ", " ", "  ", ", ")).join(parts))
    return found[:count]
