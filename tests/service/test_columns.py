"""Requests in JSON become typed columns, and what is wrong is named."""

import base64
import json
import math

import numpy as np
import pytest
from service_case import COLUMNS, row

from mtl_zoo.service.body import _parse_plain, parse
from mtl_zoo.service.columns import answer, merged, merged_values, read_rows
from mtl_zoo.service.errors import RequestError
from mtl_zoo.serving.columns import Column

ENCODED = {
    "id": Column("id", (), "int32", num_ids=9),
    "price": Column("price", (), "float32"),
    "vector": Column("vector", (2, 3), "float32"),
}


def read(given, columns=COLUMNS, max_rows=10, max_values=1000):
    return read_rows(given, columns, max_rows, max_values)


def test_rows_and_columns_say_the_same():
    rows = [row(), row(None, "größe", [], None), row(2, "", [1, 2, 3], -5)]
    by_row = read({"instances": rows})
    by_column = read({"inputs": {name: [r[name] for r in rows] for name in COLUMNS}})
    assert by_row.by_row and not by_column.by_row and by_row.count == by_column.count == 3
    for name in COLUMNS:
        np.testing.assert_array_equal(by_row.arrays[name], by_column.arrays[name])
    least = np.iinfo("int64").min
    np.testing.assert_array_equal(by_row.arrays["number"], [1, math.nan, 2])
    assert by_row.arrays["text"].tolist() == [b"ab", "größe".encode(), b""]
    assert by_row.arrays["tags"].tolist() == [[7, least, least], [least] * 3, [1, 2, 3]]
    assert by_row.arrays["place"].tolist() == [3, least, -5] and by_row.arrays["place"].dtype == np.int64
    assert by_row.values == 3 * 6


def test_context_is_the_same_in_all_rows():
    whole = read({"instances": [row(number=n) for n in (1, 2, 3)]})
    context = row()
    del context["number"]
    for rows in ({"instances": [{"number": n} for n in (1, 2, 3)]}, {"inputs": {"number": [1, 2, 3]}}):
        found = read({"context": context, **rows})
        for name in COLUMNS:
            np.testing.assert_array_equal(found.arrays[name], whole.arrays[name])
    # A single column that is left needs no name.
    assert read({"context": context, "instances": [1, 2, 3]}).arrays["number"].tolist() == [1, 2, 3]
    assert read({"context": context, "inputs": [1, 2, 3]}).arrays["number"].tolist() == [1, 2, 3]


def test_bytes_come_in_base64():
    picture = bytes(range(256))
    found = read({"instances": [row(text={"b64": base64.b64encode(picture).decode()})]})
    assert found.arrays["text"].tolist() == [picture]


def test_encoded_columns_are_narrow_and_checked():
    vector = [[1, 2, 3], [4, 5, 6.5]]
    found = read({"instances": [{"id": 8, "price": 1, "vector": vector}]}, ENCODED)
    assert found.arrays["id"].dtype == np.int32 and found.arrays["price"].dtype == np.float32
    assert found.arrays["vector"].tolist() == [vector]
    for change, words in (
        ({"id": 9}, "column 'id' must be ids of its table of 9 rows"),
        ({"id": None}, "column 'id' must not be missing"),
        ({"id": 2**40}, "column 'id' must be ids"),
        ({"price": math.nan}, "column 'price' must be finite numbers"),
        ({"price": 1e300}, "column 'price' must be finite numbers that fit in float32"),
        ({"vector": [[1, 2, 3]]}, "column 'vector' must hold lists of 2 values"),
        ({"vector": [[1, 2, 3], [1, 2]]}, "column 'vector' must hold lists of 3 values"),
        ({"vector": None}, "column 'vector' must hold a list"),
    ):
        with pytest.raises(RequestError, match=words) as caught:
            read({"instances": [{"id": 1, "price": 1, "vector": vector, **change}]}, ENCODED)
        assert caught.value.status == 400 and "raw columns" not in caught.value.message


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, "either `instances` or `inputs`"),
        ({"instances": [], "inputs": {}}, "either `instances` or `inputs`"),
        ({"instances": []}, "`instances` must be a list of one row or more. Received: a list of 0"),
        ({"instances": "x" * 500}, "`instances` must be a list"),
        ({"instances": [row()] * 11}, "1 to 10 rows. Received: 11"),
        ({"instances": [row(), 3]}, r"`instances\[1\]` must be an object with columns. Received: 3"),
        ({"instances": [{**row(), "more": 1}]}, r"`instances\[0\]` must not hold other keys .*Received: \['more'\]"),
        ({"instances": [{"number": 1}]}, r"Missing: \['text', 'tags', 'place'\]"),
        ({"instances": [row()], "instance": 1}, r"The body must not hold other keys .*'instance'"),
        ({"instances": [row()], "signature_name": "other"}, "`signature_name` must be 'serving_default'"),
        ({"instances": [row()], "context": 3}, "`context` must be an object"),
        ({"instances": [row()], "context": {"who": 3}}, "`context` must not hold other keys"),
        ({"instances": [row()], "context": row()}, "must hold a column of the model"),
        ({"inputs": 3}, "`inputs` must be an object of columns. Received: 3"),
        ({"inputs": {**{name: [] for name in COLUMNS}, "text": 3}}, "column 'text' must be a list. Received: 3"),
        ({"inputs": {name: [] for name in COLUMNS}}, "1 to 10 rows. Received: 0"),
        ({"inputs": {**{n: [v] for n, v in row().items()}, "text": ["a", "b"]}}, "lists of one length"),
        ({"instances": [row(number="1")]}, "column 'number' must hold a number in each row. Received: '1'"),
        ({"instances": [row(number=True)]}, "column 'number' must hold a number .* Received: true"),
        ({"instances": [row(number=math.inf)]}, "column 'number' must hold finite numbers"),
        ({"instances": [row(number=10**400)]}, "column 'number' must hold numbers that fit in float64"),
        ({"instances": [row(place=2**63)]}, "column 'place' must hold numbers that fit in int64"),
        ({"instances": [row(place=1.0)]}, "column 'place' must hold a whole number in each row. Received: 1.0"),
        ({"instances": [row(place=False)]}, "column 'place' must hold a whole number"),
        ({"instances": [row(place=[1])]}, "column 'place' .* Received: a list of 1"),
        ({"instances": [row(text=3)]}, "column 'text' must hold a string"),
        ({"instances": [row(text="\ud800")]}, "column 'text' must hold Unicode"),
        ({"instances": [row(text={"b64": "?"})]}, "column 'text': \"b64\" must be base64"),
        ({"instances": [row(text={"b65": ""})]}, "column 'text' must hold a string, or"),
        ({"instances": [{**row(), "tags": 3}]}, "column 'tags' must hold a list in each row. Received: 3"),
        ({"instances": [row(tags=[1, "x"])]}, "column 'tags' must hold a whole number"),
        ({"instances": [row(tags=[[1]])]}, "column 'tags' must hold a whole number .* a list of 1"),
        ({"instances": [row(tags=[1] * 2000)]}, "at most 1000 values"),
        # 10 rows of one short list and one of 200 values: padding is what is large.
        ({"instances": [row()] * 9 + [row(tags=[1] * 200)]}, "at most 1000 values, padding included"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(given, words):
    with pytest.raises(RequestError, match=words) as caught:
        read(given)
    assert caught.value.status == 400 and len(caught.value.message) < 700


def test_context_counts_as_often_as_it_is_repeated():
    context = {name: value for name, value in row(tags=[1] * 200).items() if name != "number"}
    with pytest.raises(RequestError, match="at most 1000 values, padding included"):
        read({"context": context, "inputs": {"number": [1] * 9}})


def test_answers_have_the_shapes_of_tensorflow_serving():
    one = {"click": np.array([[0.5], [0.25]], "float32")}
    two = {**one, "kind": np.array([[1, 0], [0, 1]], "float32")}
    assert answer(one, True) == {"predictions": [[0.5], [0.25]]}
    assert answer(one, False) == {"outputs": [[0.5], [0.25]]}
    assert answer(two, True) == {
        "predictions": [{"click": [0.5], "kind": [1.0, 0.0]}, {"click": [0.25], "kind": [0.0, 1.0]}]
    }
    assert answer(two, False) == {"outputs": {"click": [[0.5], [0.25]], "kind": [[1.0, 0.0], [0.0, 1.0]]}}


def test_requests_are_put_under_each_other_at_one_width():
    parts = [read({"instances": [row(tags=tags)]}).arrays for tags in ([1], [1, 2, 3], [])]
    together = read({"instances": [row(tags=tags) for tags in ([1], [1, 2, 3], [])]}).arrays
    found = merged(parts, COLUMNS)
    for name in COLUMNS:
        np.testing.assert_array_equal(found[name], together[name])
    assert merged_values(parts) == sum(array.size for array in together.values())


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "must be JSON"),
        (b"{", "must be JSON. Received: .*, at line 1, column 2"),
        (b"\xff\xfe{}", "must be UTF-8. Received: a wrong byte at place 0"),
        (b"[1]", "must be a JSON object. Received: a list of 1"),
        (b"null", "must be a JSON object. Received: null"),
        (b'{"a": 1, "a": 2}', r"each key once. Received twice: \['a'\]"),
        (b'{"a": {"b": 1, "b": 2}}', "each key once"),
        (b'{"a" : 1, "a": 2, "b": "\\":"}', r"each key once. Received twice: \['a'\]"),
        (b'{"a"\n:1,"a":2}', "each key once"),
        (b'{"instances": [{"a": 1, "\\u0061": 2}]}', "each key once"),
        (b'{"a":' * 100_000, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a": ' + b"9" * 5000 + b"}", "sensible length"),
        (b'\xef\xbb\xbf{"a": 1}', "must be JSON"),
    ],
)
def test_bodies_that_are_no_object_are_refused(body, words):
    with pytest.raises(RequestError, match=words) as caught:
        parse(body)
    assert caught.value.status == 400


def test_bodies_are_parsed():
    content = {"instances": [row(text="größe \U0001f600\n")], "n": [None, True, 1.5]}
    assert parse(json.dumps(content).encode()) == content
    assert parse(json.dumps(content, ensure_ascii=False).encode()) == content


@pytest.mark.parametrize(
    "content, plainly",
    [
        ({"instances": [row(), row(text="a:b")], "signature_name": ""}, True),
        ({"context": {"text": "x"}, "inputs": {"number": [1, None, 2.5], "tags": [[], [1]]}}, True),
        ({"inputs": [1, 2]}, True),
        ({"inputs": {"text": ['a":b']}}, False),
        ({"inputs": {"text": [{"b64": "AAAA"}]}}, False),
        ({"inputs": {"number": [float("inf")]}}, False),
        ({"inputs": {"text": ["\ud800"]}}, False),
        ({"inputs": {"number": [2**63 - 1, 1 - 10**18, 0.012345678901234567]}}, True),
        ({"inputs": {"text": [2**64]}}, False),
        ({"inputs": {"text": [1, -(2**63) - 1]}}, False),
        ({"inputs": {"text": [[10**30]]}}, False),
    ],
)
def test_plain_bodies_are_parsed_quickly_and_the_same(content, plainly):
    body = json.dumps(content).encode()
    quickly = _parse_plain(body)
    assert quickly == (content if plainly else None)
    assert parse(body) == content and json.dumps(parse(body)) == json.dumps(content)
