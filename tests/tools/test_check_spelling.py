"""Spelling is checked in the prose of the built site, and only there."""

import pytest

PAGE = """<html><body><nav>wrongg</nav><article><h1>The voxel's registration</h1>
<p>It computes a <code>wrongg</code> map of doc/wrongg.rst, <em>twice</em>.</p>
<pre>wrongg</pre><p>CamelCase, N4ITK and dipy_wrongg are names<br>of the field.</p>
<p>{}</p></article></body></html>"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Check a page with a text; return the code and the lines that are printed."""
    pytest.importorskip("spellchecker")
    from tools import check_spelling

    def check(text):
        (tmp_path / "page.html").write_text(PAGE.format(text))
        monkeypatch.setattr("sys.argv", ["check_spelling.py", str(tmp_path)])
        monkeypatch.setattr(check_spelling, "WORDS", tmp_path / "words.txt")
        (tmp_path / "words.txt").write_text("voxel\nunused\n")
        code = check_spelling.main()
        return code, capsys.readouterr().out.splitlines()

    return check


def test_good_prose(check):
    code, lines = check("Nothing else.")
    assert code == 0 and lines[0] == "not used, in words.txt: unused"


def test_a_wrong_word(check):
    code, lines = check("The registraton of <code>a</code>image.")
    assert code == 1 and lines[0] == "registraton: page.html"
    assert lines[-1].endswith("1 faults")
