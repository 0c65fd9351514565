import io

import pytest
from rich.console import Console

import mtl_zoo_cli
from mtl_zoo import cli_data
from mtl_zoo.datasets import Check, list_datasets


def run(*arguments):
    args = mtl_zoo_cli.parser().parse_args(["data", *map(str, arguments)])
    output = io.StringIO()
    code = cli_data.run(args, Console(file=output, width=200))
    return code, output.getvalue()


def test_list(tmp_path):
    (tmp_path / "movielens_100k").mkdir()
    code, text = run("list", "--data-dir", tmp_path)
    assert code == 0
    lines = {name: next(line for line in text.splitlines() if f" {name} " in line) for name in list_datasets()}
    here = {name: line.split("│")[2].strip() for name, line in lines.items()}
    assert here == {
        "ali_ccp": "login",
        "aliexpress": "login",
        "amazon_reviews": "no",
        "bookcrossing": "no",
        "census_income": "no",
        "coat": "no",
        "druglib": "no",
        "hetrec_lastfm_2k": "no",
        "kuairand": "no",
        "mind": "login",
        "movielens_100k": "in part",
        "movielens_1m": "no",
        "retailrocket": "login",
        "synthetic_funnel": "generated",
        "synthetic_regression": "generated",
    }
    assert str(tmp_path) in text


def test_list_shows_what_is_complete(tmp_path):
    (tmp_path / "movielens_100k").mkdir()
    for name in ("u.data", "u.user.gz", "u.item"):
        (tmp_path / "movielens_100k" / name).write_bytes(b"")
    line = next(line for line in run("list", "--data-dir", tmp_path)[1].splitlines() if "movielens_100k" in line)
    assert line.split("│")[2].strip() == "yes"


def test_describe():
    code, text = run("describe", "synthetic_funnel", "--set", "size=small", "--set", "cart=true", "--set", "history=3")
    assert code == 0
    for part in ("variant small,cart=True,history=3", "20,000, 0.0", "item_field_4", "defined on", "(3,)"):
        assert part in text
    code, text = run("describe", "synthetic_regression", "--set", "size=small")
    assert code == 0 and "note: least mean squared error" in text and "encoded" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("describe", "nothing"), "error: `name` must be one of the known values. Received: name='nothing'"),
        (
            ("describe", "synthetic_funnel", "--set", "size"),
            "error: `--set` must be OPTION=VALUE. Received: --set size",
        ),
        (("describe", "synthetic_funnel", "--set", "sise=small"), "error: `load_dataset` takes only the options of"),
        (
            ("fetch", "ali_ccp", "--data-dir", "/nowhere"),
            "error: `fetch` cannot download 'ali_ccp': it is behind a login",
        ),
        (("verify", "movielens_1m", "--data-dir", "/nowhere"), "mtl-zoo data fetch movielens_1m"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(arguments, text):
    code, output = run(*arguments)
    assert code == 1 and text in output


def test_verify_and_fetch_show_every_check(monkeypatch):
    code, text = run("verify", "synthetic_funnel")
    assert code == 0 and "ok" in text
    monkeypatch.setattr(cli_data, "verify_dataset", lambda name, folder: [Check("rows", "3", "2", False)])
    code, text = run("verify", "synthetic_funnel")
    assert code == 1 and "WRONG" in text

    def fetch(name, folder, force, progress):
        progress("file.zip", 1, 2)
        progress("file.zip", 2, 2)
        return [Check("rows [all]", "3", "3", True)]

    monkeypatch.setattr(cli_data, "fetch_dataset", fetch)
    code, text = run("fetch", "movielens_1m", "--force")
    assert code == 0 and "rows [all]" in text


def test_a_console_is_made_where_none_is_given(capsys):
    assert mtl_zoo_cli.main(["data", "verify", "synthetic_funnel"]) == 0
    assert "generates" in capsys.readouterr().out
