"""Files that are written completely or not at all."""

from pathlib import Path

import pytest

from dipy_dl_reg.io.atomic_files import (
    check_writable,
    write_all_or_none,
    write_atomically,
)


def names(folder):
    return {path.name for path in Path(folder).iterdir()}


def test_files_come_together_or_not_at_all(tmp_path):
    paths = [tmp_path / "a" / "b" / "1.txt", tmp_path / "2.txt"]
    with pytest.raises(RuntimeError), write_all_or_none(paths) as made:
        made[0].write_text("1")
        raise RuntimeError
    assert not names(tmp_path)
    with write_all_or_none(paths) as made:
        for path in made:
            path.write_text("1")
        assert names(tmp_path / "a" / "b") == {made[0].name} != {"1.txt"}
    assert [path.read_text() for path in paths] == ["1", "1"]
    assert names(tmp_path) == {"a", "2.txt"}
    mode = paths[0].stat().st_mode & 0o777
    plain = tmp_path / "plain"
    plain.touch()
    assert mode == plain.stat().st_mode & 0o777


def test_one_file_needs_its_folder(tmp_path):
    path = tmp_path / "folder" / "1.txt"
    with pytest.raises(FileNotFoundError, match="folder"), write_atomically(path):
        pass
    path.parent.mkdir()
    with write_atomically(path) as temporary:
        temporary.write_text("1")
        assert temporary.suffix == ".txt" and not path.exists()
    assert path.read_text() == "1"
    with pytest.raises(FileExistsError), write_atomically(path):
        pass
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text("2")
    assert path.read_text() == "2" and names(path.parent) == {"1.txt"}


def test_what_cannot_be_written_is_an_error_before_work(tmp_path):
    file = tmp_path / "file"
    file.touch()
    check_writable(tmp_path / "new" / "folder" / "1.txt")
    check_writable(file, overwrite=True)
    assert names(tmp_path) == {"file"}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        check_writable(file)
    with pytest.raises(FileExistsError, match="is a folder"):
        check_writable(tmp_path, overwrite=True)
    with pytest.raises(NotADirectoryError):
        check_writable(file / "1.txt")
