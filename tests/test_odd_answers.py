"""The REST client and odd answers: a sentence, or a prediction for each image.

Each comes from a real server, in HTTP without a fault, to two images.
"""

import json

import loopback
import misbehaving
from misbehaving import answer
from misbehaving import http
from misbehaving import prediction
import pytest

rest_client = loopback.kit_module("rest_client")

_GOOD = answer(prediction(), prediction())
_NO_JSON = "is no JSON object of predictions (it said: "
_NO_CLASS = "expected the place of a class (there are 3)"

# The content of an answer to two images, and the sentence of the client.
ANSWERS = {
    "empty": (b"", _NO_JSON + "nothing)"),
    "a page": (b"<html>\x07", _NO_JSON + r"<html>\x07)"),
    "null": (b"null", _NO_JSON + "null)"),
    "a list": (b"[]", _NO_JSON),
    "NaN": (b"NaN", _NO_JSON),
    "another object": (b'{"outputs": {}}', _NO_JSON),
    "cut off": (_GOOD[:-5], _NO_JSON),
    "more than JSON": (_GOOD + b"{}", _NO_JSON),
    "a byte order mark": (b"\xef\xbb\xbf" + _GOOD, _NO_JSON),
    "UTF-16": (_GOOD.decode().encode("utf-16"), _NO_JSON),
    "no UTF-8": (_GOOD.replace(b"one", b"\xe9\xff"), _NO_JSON),
    "deep lists": (b'{"predictions": ' + b"[" * 10**6, _NO_JSON),
    "deep objects": (b'{"a": ' * 10**5, _NO_JSON),
    "a number of 9999 digits": (
        b'{"predictions": ' + b"9" * 9999 + b"}",
        _NO_JSON,
    ),
    "a key twice": (_GOOD.replace(b'"logits"', b'"class_name"'), _NO_JSON),
    "no list": (b'{"predictions": null}', "it has None, expected a list of 2"),
    "a text": (b'{"predictions": "ab"}', "it has 'ab', expected a list of 2"),
    "none": (answer(), "it has 0 predictions, expected a list of 2"),
    "fewer": (answer(prediction()), "it has 1 predictions, expected"),
    "more": (answer(*3 * [prediction()]), "it has 3 predictions, expected"),
    "rows that are null": (answer(None, None), "of image 0 is None"),
    "rows that are lists": (answer([1.0], [2.0]), "of image 0 is None"),
}


def odd(key, value, sentence):
    """Entries for a value of the second of two predictions."""
    name = f"{key} {json.dumps(value)[:20]}"
    content = answer(prediction(), prediction(**{key: value}))
    ANSWERS[name] = (content, f"{key} of image 1 is {sentence}")


odd("logits", None, "None, expected finite numbers")
odd("logits", [1.0, float("inf"), 0.0], "[1.0, inf, 0.0], expected finite")
odd("logits", [1.0, float("nan"), 0.0], "[1.0, nan, 0.0], expected finite")
odd("logits", [1.0, 2.0], "[1.0, 2.0], expected finite numbers, one for each")
odd("logits", [1.0, 2.0, 10**400], "[1.0, 2.0, 100000")
odd("logits", [[1.0], [2.0], [3.0]], "[[1.0], [2.0], [3.0]], expected finite")
odd("probabilities", "0.5", "'0.5', expected numbers of 0 to 1")
odd("probabilities", ["1", "0", "0"], "['1', '0', '0'], expected numbers")
odd("probabilities", [True, False, False], "[True, False, False], expected")
odd("probabilities", [None, 0.5, 0.5], "[None, 0.5, 0.5], expected numbers")
odd("probabilities", [-0.5, 1.0, 0.5], "[-0.5, 1.0, 0.5], expected numbers")
odd("probabilities", [7.0, 0.0, 0.0], "[7.0, 0.0, 0.0], expected numbers")
odd("probabilities", [], "[], expected numbers of 0 to 1, one for each class")
odd("probabilities", 4 * [0.25], "[0.25, 0.25, 0.25, 0.25], expected")
odd("probabilities", {"0": 1}, "{'0': 1}, expected numbers")
odd("class_index", -1, f"-1, {_NO_CLASS}")
odd("class_index", 3, f"3, {_NO_CLASS}")
odd("class_index", 10**400, "100000")
odd("class_index", 1.0, f"1.0, {_NO_CLASS}")
odd("class_index", True, f"True, {_NO_CLASS}")
odd("class_index", "1", f"'1', {_NO_CLASS}")
odd("class_name", None, "None, expected a text")
odd("class_name", 7, "7, expected a text")
odd("class_name", ["one"], "['one'], expected a text")
odd("class_name", {"b64": "AA=="}, "{'b64': 'AA=='}, expected a text")

# Odd, and still an answer: what is printed of the second image.
PRINTED = {
    "another content type": (
        http(_GOOD, headers=["Content-Type: text/html"]),
        "one 0.6000",
    ),
    "a length of letters": (http(_GOOD, length="many"), "one 0.6000"),
    "blank lines": (http(b"\r\n" + _GOOD + b"\n\n"), "one 0.6000"),
    "escape codes": (
        http(answer(prediction(), prediction(class_name="\x1b[2J\nx\x9b"))),
        r"\x1b[2J\nx\x9b 0.6000",
    ),
    "right to left": (
        http(answer(prediction(), prediction(class_name="\u202eeno"))),
        r"\u202eeno 0.6000",
    ),
    "half a character": (
        http(answer(prediction(), prediction(class_name="\ud83d"))),
        r"\ud83d 0.6000",
    ),
    "a name of a MB": (
        http(answer(prediction(), prediction(class_name="x" * 10**6))),
        "x" * 300 + " 0.6000",
    ),
    "further keys": (
        http(answer(prediction(), prediction(more=[None]))),
        "one 0.6000",
    ),
}


def ask(address, folder):
    return misbehaving.call(
        rest_client, f"--url=http://{address}", misbehaving.write_images(folder)
    )


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name, tmp_path):
    content, part = ANSWERS[name]
    with misbehaving.listening(misbehaving.says(http(content))) as address:
        sentence, lines = ask(address, tmp_path)
    misbehaving.assert_sentence(sentence, part)
    assert not lines


@pytest.mark.parametrize("name", PRINTED)
def test_answers_that_are_printed(name, tmp_path):
    content, line = PRINTED[name]
    with misbehaving.listening(misbehaving.says_and_closes(content)) as address:
        status, lines = ask(address, tmp_path)
    assert status == 0
    assert [each.split(": ", 1)[1] for each in lines] == ["one 0.6000", line]
