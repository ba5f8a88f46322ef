"""Unusual prompts that reveal differences between two implementations of a tokenizer."""

from __future__ import annotations

PROBE_PROMPTS = (
    "",
    " ",
    "\n",
    "a red circle",
    " a red circle",
    "   three  leading,   and trailing spaces   ",
    "a\nline, another\r\nline\n\n\nand\ta tab",
    "\u00a0no-break\u2003wide\u3000spaces",
    # Accents, composed and decomposed, and characters that normalizers fold.
    "café naïve Ångström",
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
    "e\u0301",
    "Tie\u0302\u0301ng Vie\u0323\u0302t",
    "ﬁne ligatures, ½, ①, ㎏ and Ｆｕｌｌ ｗｉｄｔｈ",
    "Straße İstanbul ǅ ς Σ",
    "CamelCase and SHOUTING and iPhone",
    # Scripts.
    "一个红色的圆形在蓝色正方形的左边",
    "漢字かな交じり文、カタカナ ﾊﾝｶｸ",
    "빨간 원",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "دائرة حمراء",
    "עיגול אדום — שָׁלוֹם",
    "красный круг",
    "लाल घेरा",
    "วงกลมสีแดง",
    # Emoji, including joined, colored and flags.
    "🦜 a parrot",
    "👩‍👩‍👧‍👦 👍🏽 🇫🇷 ❤️",
    # Invisible characters.
    "zero\u200bwidth\u200djoiner\u200c and \ufeffmark \u00ad soft",
    "\u202eright to left\u202c",
    "a\x00b\x07c\x7f",
    # Numbers and signs.
    "0 12 345 6789 1234567890 3.14159 1,000,000 ٣٤",
    "2x3=6; 50% off! (really?) {a: [b, 'c']} a_b a-b a/b\\c #d @e",
    "it's we'll I'VE don’t ‘quoted’ “text” … — –",
    "https://example.org/a/b?c=d&e=%20f#g and mail@example.org",
    # Special tokens of some tokenizers, and look-alikes.
    "<|im_start|>user\nhello<|im_end|>",
    "<|endoftext|><|begin_of_text|><|eot_id|>",
    "<tool_call>{}</tool_call> <think> </think>",
    "<s> </s> <unk> <pad> <mask>",
    "[CLS] [SEP] [UNK] [PAD] [MASK]",
    "<extra_id_0> < |im_end| > <｜end▁of▁sentence｜>",
    "▁under▁scores Ġbyte Ċlevel ##piece",
    # Lengths.
    "a",
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 3,
    "!" * 70 + "?" * 70,
    "a large red circle to the left of a small blue square, " * 60,
)
