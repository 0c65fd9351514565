import os
import subprocess
import sys

import pytest

import mtl_zoo
import mtl_zoo_cli as cli


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"mtl-zoo {mtl_zoo.__version__}"


def test_env(capsys):
    assert cli.main(["env"]) == 0
    shown = capsys.readouterr().out
    for name in ("python", "mtl_zoo", "tensorflow", "keras", "keras-rs", "tensorflow-text", "backend", "CPU"):
        assert name in shown


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("env", "models", "demo", "data", "bench", "launch", "serve"))


# fault 24
@pytest.mark.parametrize(
    "words", ["--version", "--help", "bench run --help", "data fetch --help", "demo --help", "serve --help"]
)
def test_help_imports_neither_the_package_nor_tensorflow(words):
    code = f"""
import sys
import mtl_zoo_cli
try:
    mtl_zoo_cli.main({words.split()!r})
except SystemExit:
    sys.exit(any(name in sys.modules for name in ("mtl_zoo", "tensorflow", "keras", "numpy")))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_models_are_listed_and_shown(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.main(["models"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in mtl_zoo.list_models())
    assert cli.main(["models", "mmoe"]) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == str(mtl_zoo.model_info("mmoe"))
    for text in ("mtl_zoo.models.MMoE", "Ma et al., KDD 2018, doi:10.1145/3219819.3220007", "num_experts=8"):
        assert text in shown
    assert cli.main(["models", "mmoee"]) == 2
    assert "`model` must be one of the known values" in capsys.readouterr().err


def test_data_is_handed_over(capsys):
    assert cli.main(["data", "list"]) == 0
    assert "synthetic_funnel" in capsys.readouterr().out


def test_demo_passes_its_options_and_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("mtl_zoo.benchmark.demo.run_demo", lambda out, seeds: asked.append((out, seeds)) or 0)
    assert cli.main(["demo", "--out", str(tmp_path), "--seeds", "1"]) == 0
    assert asked == [(tmp_path, 1)]
    monkeypatch.undo()
    assert cli.main(["demo", "--out", str(tmp_path), "--seeds", "0"]) == 2
    assert "`seeds` must be a whole number >= 1" in capsys.readouterr().err


def test_serve_passes_its_options_and_the_key(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("mtl_zoo.service.serve", lambda folder, settings: asked.append((folder, settings)) or 0)
    monkeypatch.setenv("MTL_ZOO_API_KEY", "key-of-environment")
    assert cli.main(["serve", str(tmp_path), "--deadline", "0.5", "--hosts", "a.example", "--demo"]) == 0
    folder, settings = asked.pop()
    assert folder == tmp_path and settings.deadline == 0.5 and settings.hosts == ("a.example",) and settings.demo
    assert settings.api_key == "key-of-environment" and settings.host == "127.0.0.1"
    (tmp_path / "key").write_text("key-of-the-file\n")
    assert cli.main(["serve", str(tmp_path), "--api-key-file", str(tmp_path / "key")]) == 0
    assert asked.pop()[1].api_key == "key-of-the-file"
    assert cli.main(["serve", str(tmp_path), "--port", "99999"]) == 2
    assert "`port` must be a whole number <= 65,535" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.main(["serve", str(tmp_path / "nowhere")]) == 2
    assert "`folder` must be a folder of versions, or a model" in capsys.readouterr().err


def test_no_command_is_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_native_messages_are_held_back_unless_the_import_fails(capfd):
    with cli.native_messages_held_back():
        os.write(2, b"noise ")
    os.write(2, b"kept ")
    with pytest.raises(ImportError), cli.native_messages_held_back():
        os.write(2, b"reason")
        raise ImportError
    assert capfd.readouterr().err == "kept reason"
