"""Penn Treebank tokenisation of captions, as the COCO caption evaluation does it.

Published BLEU and CIDEr figures are computed on the tokens of coco-caption: the
Java `PTBTokenizer` of Stanford CoreNLP 3.4.1 with `-lowerCase`, minus a fixed list
of punctuation. This file reproduces that behaviour without Java. It was written
from the observed output of the Java program; what it knows of English (the
abbreviations, the contractions, the words that may begin a sentence) is what that
program was seen to treat specially.
"""

import re
import unicodedata
from functools import lru_cache

# coco-caption drops these tokens after tokenisation. It compares them with
# lower-cased tokens, so its "-LRB-" never matches and brackets stay as "-lrb-".
PUNCTUATIONS = frozenset("'' ' `` ` . ? ! , : - -- ... ;".split())

# --------------------------------------------------------------------------------
# Characters. Java's lexer knows the Unicode of its day and 16-bit units: what it
# does not know (emoji, for one) is dropped and ends a word, like a space.

_DASHES = "\u0096\u0097\u2013\u2014\u2015"
_REPLACED = {
    "\u0085": "...",
    "\u0091": "`",
    "\u0092": "'",
    "\u0093": "``",
    "\u0094": "''",
    "\u00a2": "cents",
    "\u00a3": "#",
    "\u00ab": "``",
    "\u00bb": "''",
    "\u00bc": "1/4",
    "\u00bd": "1/2",
    "\u00be": "3/4",
    "\u2018": "`",
    "\u2019": "'",
    "\u201b": "`",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": "...",
    "\u2039": "`",
    "\u203a": "'",
    "\u2153": "1/3",
    "\u2154": "2/3",
    "\u0080": "$",
    "\u00a4": "$",
    "\u20a0": "$",
    "\u20ac": "$",
    '"': "''",
    "&amp;": "&",
    "&apos;": "'",
    "&gt;": ">",
    "&lt;": "<",
    "&nbsp;": "",
    "&quot;": "''",
    "&mdash;": "--",
    "&ndash;": "--",
    "(": "-LRB-",
    ")": "-RRB-",
    "[": "-LSB-",
    "]": "-RSB-",
    "{": "-LCB-",
    "}": "-RCB-",
}
_REPLACED.update(dict.fromkeys(_DASHES, "--"))
# Blocks whose signs become tokens of their own; signs elsewhere are dropped.
_SYMBOLS = (
    "!-/:-@\\[-`{-~\u00a1-\u00ac\u00ae-\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0"
    "\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u061b\u061e\u061f\u066a\u066d"
    "\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd\u2013-\u2023"
    "\u2026\u2030-\u203b\u203e-\u2042\u2044\u2070\u2074-\u208e\u20a0\u20a4\u20ac"
    "\u2100-\u214f\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f"
    "\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffe6"
    "\u0080\u0085\u0091-\u0094\u0096\u0097"
)
_SYMBOL = re.compile(f"[{_SYMBOLS}]")
# Of the marks that combine with letters, those that it knows; the vowel signs of many
# scripts (Khmer, Burmese, Tibetan, some Indic ones) are dropped.
_MARKS = re.compile(
    "[\u0300-\u05c7\u0615-\u065e\u0670-\u07f3\u0900-\u0903\u093c-\u094e"
    "\u0951-\u0955\u0962-\u09e3\u0a01-\u0a4d\u0a81-\u0acd\u0b82-\u0bcd"
    "\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d48\u0e31-\u0ecd\u1885\u1886]"
)
# Signs that are letters to it.
_LETTER_SIGNS = (
    "\u02c2-\u02ff\u0375\u0384\u0385\u03f6\u055a-\u055f\u06dd\u06de\u06e9\u06fd\u06fe"
    "\u070f"
)

# --------------------------------------------------------------------------------
# Words that are treated specially.

# Their period belongs to them, wherever they stand.
_ABBREVIATIONS = (
    "adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bhd bldg blvd "
    "brig bros calif capt cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec "
    "dept det dr drs elec ens esq est etc ext feb fla fri ft ga gen gov govs hon inc "
    "ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs "
    "mfg mich minn mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct "
    "okla penn pfc ph plc ppte ppty pres prof profs pte ptes pty ptys pvt rd rep reps "
    "rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt sys tel tenn thu "
    "thurs treas tue tues univ va vs vt wed wis wisc wm wyo"
).split()
# The same, but ordinary words unless capitalised.
_NAMES = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash".split()
# Abbreviations only where a number follows ("No. 5").
_BEFORE_NUMBER = "art ca fig figs no nos op pp prop".split()
# After "B." these begin a new sentence, and the period is the end of the last one.
_SENTENCE_STARTERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If "
    "In It Last Many More Mr. Ms. Now Once One Other Our She Since So Some Such That "
    "The Their Then There These They This We What When While Yet You"
).split()
# One word on paper, two tokens.
_SPLIT_WORDS = {
    "cannot": 3,
    "gimme": 3,
    "gonna": 3,
    "gotta": 3,
    "lemme": 3,
    "wanna": 3,
    "'tis": 2,
    "'twas": 2,
}

# Words, with or without hyphens, and commas and periods at their ends: what most
# captions are, and what needs no rules. `++` does not go back: a long caption that is
# not so is left at once.
_PLAIN = re.compile(
    r"(?:[A-Za-z\s]++|(?<=[A-Za-z])-(?=[A-Za-z])|(?<=[A-Za-z]),(?=\s)"
    r"|(?<!\S)[,.](?!\S))*+(?:(?<=[A-Za-z])(\.)\s*)?"
)
_WITH_PERIOD = frozenset(word.lower() for word in _ABBREVIATIONS + _NAMES)
_TWO_TOKENS = frozenset(_SPLIT_WORDS)
_SIMPLE = re.compile(r"(?:[A-Za-z]+|[.,])(?=\s|$)")
_SPACE = re.compile(r"\s+")
# Whatever comes after it: only rules for these three signs look beyond a space.
_ALONE = re.compile(r"[^\s<(.]{1,40}(?=\s|$)")


def _ranges(characters):
    """Spells sorted characters as the inside of a regular expression's [...]."""
    ranges = []
    for character in characters:
        if ranges and ord(character) == ord(ranges[-1][1]) + 1:
            ranges[-1][1] = character
        else:
            ranges.append([character, character])
    return "".join(f"{first}-{last}" for first, last in ranges)


@lru_cache(maxsize=None)
def _rules(is_ascii):
    """The lexical rules, compiled on first use: they need a table of Unicode, which
    takes ten times as long as those for ASCII alone."""
    letters, digits = [], []
    for character in map(chr, range(0x80, 0x80 if is_ascii else 0x10000)):
        category = unicodedata.category(character)
        if category == "Nd":
            digits.append(character)
        elif category in ("Lu", "Ll", "Lt", "Lm", "Lo"):
            letters.append(character)
        elif category in ("Mn", "Mc") and _MARKS.match(character):
            letters.append(character)
    letters, digits = _LETTER_SIGNS + _ranges(letters), _ranges(digits)
    # A soft hyphen is part of its word until the word is known.
    letter = f"[A-Za-z\u00ad{letters}]"
    digit = f"[0-9{digits}]"
    word = f"[A-Za-z0-9\u00ad{letters}{digits}]"
    curly = "(?:[\u2019\u0092]|&apos;)"
    apostrophe = f"(?:'|{curly})"
    hyphen = "[-\u2010\u2011\u058a]"
    names = f"{word}+(?:_{word}+)*"
    elision = f"[dol]{apostrophe}(?={letter})"
    number = f"(?:{digit}*(?:[.:,\u066b\u066c]{digit}+)+|{digit}+)"
    tag = "[a-z][a-z0-9.:_-]*"
    attribute = rf"""\s+{tag}(?:\s*=\s*(?:"[^"]*"|'[^']*'))?"""
    starters = "|".join(map(re.escape, _SENTENCE_STARTERS))
    acronym = r"[A-Za-z](?:\.[A-Za-z])+"
    patterns = (
        # <b>  </b>  <img src="x">  <!doctype html>  <!-- a comment -->
        rf"<{tag}(?:{attribute})*\s*/?\s*>|</{tag}\s*>",
        r"<[!?][a-z][^<>]*>|<!--[^>]*>",
        # http://a.b/c  www.example.com  me@example.com  @someone  #tag. Addresses
        # end: else a caption without spaces would take the square of its length.
        r"www\.(?:[a-z0-9_-]+\.)*[a-z]{2,}",
        r"www\.(?:[a-z0-9_-]+\.)+[a-z]{2,4}/[^\s\"<>|()]*[^\s\"<>|().!?,;:'-]",
        r"https?://[^\s\"<>|()]+[^\s\"<>|().!?,;:'-]",
        r"(?:[a-z0-9_-]+\.)+(?:com|net|org|edu)/[^\s\"<>|()]*[^\s\"<>|().!?,;:'-]",
        r"<?[a-z0-9][^\s\"<>|(){}]{0,254}@"
        r"(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.,;:!?']+>?",
        r"@[a-z_][a-z_0-9]*",
        rf"\#{letter}+",
        # do|n't  it|'s  they|'re
        rf"(?:{letter}*(?!n){letter})?n(?:{apostrophe}|`)t(?!{letter})",
        rf"'(?:[msd]|ll|re|ve)(?!{letter})",
        rf"{curly}(?:[msd]|ll|re|ve)",
        # o'clock  d'Artagnan  O'Neil  ma'am  ol'  rock|'n'|roll  '70s
        rf"{letter}(?:{letter}|{hyphen})*[aeiouy]{apostrophe}"
        rf"(?!(?:[msd]|ll|re|ve)(?!{letter}))(?-i:[aeiouA-Z]){letter}*",
        rf"(?-i:[A-HJ-XZdlno]){apostrophe}{letter}{{2,}}",
        rf"{apostrophe}(?:n{apostrophe}|n(?=\s|$)|em|cause|till?)",
        rf"{apostrophe}(?:[0-9][0-9](?=\s|$)|[2-9]0s)",
        rf"[ldj]{apostrophe}|y{apostrophe}(?={letter})",
        rf"(?:ol|dunkin|somethin){apostrophe}(?!{letter}{{2}})",
        rf"cap{apostrophe}n|c'mon|c'est|s'mores|e'er|ev'ry|li'l|nat'l|'t(?:is|was)",
        # dog  a_b  well-known  3-year-old  U.S.-led  and/or  dog.jpg
        names,
        rf"(?:{names}|[a-z0-9][a-z0-9.,]*|{elision}{names})"
        rf"(?:{hyphen}(?:{acronym}\.|{elision}{names}|{names}))+",
        rf"{word}+(?:{hyphen}{letter}+)*(?:/{word}+(?:{hyphen}{letter}+)*){{1,2}}",
        rf"{letter}{word}*(?:[.!?]{letter}{word}*)+",
        # AT&T  (capitals only)
        r"(?-i:[A-Z]+)(?:&(?:amp;)?(?-i:[A-Z]+))+",
        # 3.5  1,000  10:30  .5  -10  1-1/2
        rf"[-+]?{number}",
        r"(?:[0-9]{1,4}-)?[0-9]{1,4}[/\u2044][0-9]{1,4}(?![0-9])",
        # U.S.  a.m.  Mr.  No. 5
        rf"(?:{acronym}|ph\.d)\.",
        rf"(?:{'|'.join(_ABBREVIATIONS)})\.",
        rf"(?-i:{'|'.join(_NAMES + [n.upper() for n in _NAMES])})\.",
        rf"(?:{'|'.join(_BEFORE_NUMBER)})\.(?=\s*[0-9])",
        rf"[a-z]\.(?!\s*$|\s+(?-i:{starters})(?:\s|$))",
        rf"(?:{word}+{hyphen})*{word}+\.(?=[,;:])",
        # !!  ?!  ...  --  ####  <<  US$  C++  :-)
        r"[!?]+|\.{3,4}|\.(?: \.){2,3}|-{2,}|\#{2,}|_+|\*{2,}|@{2,}|<<|>>",
        r"(?-i:[A-Z]+)\$|c\+\+|[cf]\#",
        r"''|``|-[lr][crs]b-",
        # (555) 555-5555
        r"\([0-9]{3}\)\s?[0-9]{3}-[0-9]{4}",
        r"&(?:amp|apos|gt|lt|mdash|nbsp|ndash|quot|\#[0-9]+);",
        r">?[:;=][-o']?(?:[()\[\]{|\\dp@]|(?-i:O))(?![a-z0-9])",
        r"\(?\^_\^\)?|t_t|>_<|['-]_['-]",
    )
    return [re.compile(pattern, re.IGNORECASE) for pattern in patterns]


_NOT = re.compile("(.*)n(?:['\u2019\u0092]|(`)|&apos;)t", re.IGNORECASE)
_CLITIC = re.compile("(?:[\u2019\u0092]|&apos;)([msd]|ll|re|ve)", re.IGNORECASE)
_AMPERSAND = re.compile("&amp;", re.IGNORECASE)


def _normalize(token):
    """Yields the token in the spelling of the Penn Treebank, `can't` as two."""
    negated = _NOT.fullmatch(token)
    if negated:
        yield negated[1]
        yield "n`t" if negated[2] else "n't"
    elif token.lower() in _SPLIT_WORDS:
        split = _SPLIT_WORDS[token.lower()]
        yield token[:split]
        yield token[split:]
    elif token in ("---", "----"):
        yield "--"
    elif token.startswith(("...", ". .")):
        yield "..."
    elif token.lower() in _REPLACED:
        yield _REPLACED[token.lower()]
    elif clitic := _CLITIC.fullmatch(token):
        yield f"'{clitic[1]}"
    else:
        token = token.replace("\u00ad", "")
        if not token.startswith("<"):
            token = token.replace("(", "-LRB-").replace(")", "-RRB-")
            token = _AMPERSAND.sub("&", token)
        yield token


def _tokenize_next(caption, position, tokens):
    """Adds what stands at a position to the tokens; returns where it ends."""
    match = _SPACE.match(caption, position)
    if match:
        return match.end()
    match = _SIMPLE.match(caption, position)
    if not match:
        # The longest match wins, the earlier rule where two are equal.
        rules = _rules(caption.isascii())
        matches = [rule.match(caption, position) for rule in rules]
        match = max(
            (match for match in matches if match and match[0]),
            key=lambda match: match.end(),
            default=None,
        )
    if match:
        tokens.extend(_normalize(match[0]))
        return match.end()
    if _SYMBOL.match(caption[position]):
        tokens.extend(_normalize(caption[position]))
    return position + 1


@lru_cache(maxsize=2**16)
def _tokenize_alone(chunk):
    tokens = []
    position = 0
    while position < len(chunk):
        position = _tokenize_next(chunk, position, tokens)
    return tuple(tokens)


def ptb_tokenize(caption):
    """Splits a caption into the tokens on which COCO scores are computed.

    Penn Treebank tokenisation, lower-cased, without punctuation, as coco-caption
    (`pycocoevalcap.tokenizer.ptbtokenizer.PTBTokenizer`) does it with Java.

    Known differences: Java looks past the end of a caption into the next one of its
    file, so that the period of a last "plan B." depends on how the next one begins;
    here every caption stands alone, and such a period ends it, as before a caption
    that begins with "A" or "The". What Java's file takes for the end of a line, such
    as U+2028, is a space here. Letters newer than Unicode 6 are letters here, dropped
    there; a mark after a digit, a hyphen after a letter with a mark, HTML's accented
    letters (`&eacute;`), and "cannot's" and its like may split elsewhere.

    Args:
        caption: str, one caption as people wrote it.

    Returns:
        A list of str.

    Example:

    >>> ptb_tokenize("The dog's owner can't run (he's a well-known U.S. actor).")
    ['the', 'dog', "'s", 'owner', 'ca', "n't", 'run', '-lrb-', 'he', "'s", 'a', \
'well-known', 'u.s.', 'actor', '-rrb-']
    """
    plain = _PLAIN.fullmatch(caption)
    if plain:
        tokens = caption.lower().replace(",", " ").replace(".", " ").split()
        if _TWO_TOKENS.isdisjoint(tokens):
            if not plain[1] or tokens[-1] not in _WITH_PERIOD:
                return tokens
    tokens = []
    position = 0
    while position < len(caption):
        chunk = _ALONE.match(caption, position)
        if chunk:
            tokens.extend(_tokenize_alone(chunk[0]))
            position = chunk.end()
        else:
            position = _tokenize_next(caption, position, tokens)
    return [
        token
        # A token with a space in it, <a tag>, is several words to BLEU and CIDEr.
        for token in " ".join(tokens).lower().split()
        if token not in PUNCTUATIONS
    ]
