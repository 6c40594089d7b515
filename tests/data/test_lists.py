"""Lists in all their variants: what is accepted, and how problems are reported."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minet.core.errors import InputError
from minet.data.config import SPLITS
from minet.data.lists import (
    Entry,
    class_names,
    label_problems,
    parse_csv,
    parse_folders,
    parse_list,
)

PARSERS = pytest.mark.parametrize("parse", [parse_list, parse_csv])


def pairs(entries: list[Entry]) -> list[tuple[str, int]]:
    return [(entry.path, entry.label) for entry in entries]


def as_list(*rows: tuple[str, str]) -> str:
    return "".join(f"{path} {label}\n" for path, label in rows)


def as_csv(*rows: tuple[str, str]) -> str:
    return "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows)


def splits(
    train: list[int], val: list[int] | None = None, test: list[int] | None = None
) -> dict[str, list[Entry]]:
    """Return splits with one entry per label."""
    labels = (train, train if val is None else val, train if test is None else test)
    return {
        split: [Entry(f"{split}/{k}.jpg", k, split) for k in values]
        for split, values in zip(SPLITS, labels, strict=True)
    }


@pytest.mark.parametrize(
    "text",
    [
        "a/1.jpg 0\nb/2.jpg 12\n",
        "a/1.jpg 0\nb/2.jpg 12",  # no line end at the end
        "a/1.jpg 0\r\nb/2.jpg 12\r\n",  # Windows
        "\ufeffa/1.jpg 0\nb/2.jpg 12\n",  # a byte-order mark, as Windows' Notepad writes
        "a/1.jpg\t0\nb/2.jpg \t 12\n",
        "\n\na/1.jpg 0\n  \n\t\nb/2.jpg 12\n\n",
        "  a/1.jpg   0  \n\tb/2.jpg 12\t\n",
        "./a/1.jpg 0\nb//2.jpg 12\n",
    ],
)
def test_list_files_of_all_editors_parse_equally(text: str) -> None:
    assert pairs(parse_list(text, "train.txt")) == [("a/1.jpg", 0), ("b/2.jpg", 12)]


def test_names_may_contain_blanks_and_letters_of_any_script() -> None:
    names = ["My cat  1.jpg", "größe/ça va.png", "猫/写真 1.webp", "a\u00a0b 2.jpg", "5 0.jpg"]
    text = "".join(f"{name} {label}\n" for label, name in enumerate(names))
    assert pairs(parse_list(text, "t")) == [(name, k) for k, name in enumerate(names)]


def test_entries_record_their_file_and_line() -> None:
    text = "\r\na.jpg 0\r\n\r\nb.jpg 1\r\n"
    assert [entry.source for entry in parse_list(text, "train.txt")] == [
        "train.txt:2",
        "train.txt:4",
    ]
    table = "path,label\na.jpg,0\nb.jpg,1\n"
    assert [entry.source for entry in parse_csv(table, "v.csv")] == ["v.csv:2", "v.csv:3"]


name = st.text(
    string.ascii_letters + string.digits + "éß猫 -_,.'(&", min_size=1, max_size=12
).filter(lambda text: text.strip() == text and text not in {".", ".."})
path = st.lists(name, min_size=1, max_size=4).map("/".join)


@settings(deadline=None)
@given(st.lists(st.tuples(path, st.integers(0, 999_999_999)), max_size=8))
def test_any_relative_path_and_label_are_parsed(rows: list[tuple[str, int]]) -> None:
    text = "".join(f"{path} {label}\n" for path, label in rows)
    assert pairs(parse_list(text, "t")) == rows


@PARSERS
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("/a/1.jpg", "0"), r"2: path '/a/1.jpg' is absolute; paths are relative to data.root"),
        ((r"C:\a\1.jpg", "0"), r"2: path 'C:\\\\a\\\\1.jpg' is absolute"),
        (("d:/a/1.jpg", "0"), r"2: path 'd:/a/1.jpg' is absolute"),
        ((r"\\server\a.jpg", "0"), r"2: path .*server.* is absolute"),
        (("../1.jpg", "0"), r"2: path '../1.jpg' leaves data.root; `..` is not allowed"),
        (("a/../../1.jpg", "0"), r"2: path 'a/../../1.jpg' leaves data.root"),
        (("a\0b.jpg", "0"), r"2: path 'a\\x00b.jpg' contains a NUL byte"),
        (("1.jpg", "-1"), r"2: label '-1' is not a non-negative integer"),
        (("1.jpg", "cat"), r"2: label 'cat' is not a non-negative integer"),
        (("1.jpg", "1.0"), r"2: label '1.0' is not a non-negative integer"),
        (("1.jpg", "\uff11"), "2: label '\uff11' is not a non-negative integer"),
        (("1.jpg", "1" * 10), r"2: label '1{10}' is not a non-negative integer"),
    ],
)
def test_an_invalid_row_is_reported_with_its_line(
    parse: object, row: tuple[str, str], message: str
) -> None:
    write = as_list if parse is parse_list else as_csv
    text = write(row) if parse is parse_csv else "\n" + write(row)
    with pytest.raises(InputError, match=f"^train:{message}") as caught:
        parse(text, "train")
    assert len(caught.value.problems) == 1


def test_a_line_without_a_label_is_reported() -> None:
    with pytest.raises(InputError, match=r"^t:1: 'a.jpg' has no label; a line is `relative/path"):
        parse_list("a.jpg\nb.jpg 0\n", "t")


@PARSERS
def test_all_problems_are_reported_together(parse: object) -> None:
    write = as_list if parse is parse_list else as_csv
    text = write(("/a.jpg", "cat"), ("ok.jpg", "0"), ("../b.jpg", "1"), ("c.jpg", "-3"))
    first = 1 if parse is parse_list else 2
    with pytest.raises(InputError) as caught:
        parse(text, "train")
    lines = [problem.split(": ")[0] for problem in caught.value.problems]
    assert lines == [f"train:{first + row}" for row in (0, 0, 2, 3)]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na/1.jpg,0\nb c/2.jpg,12\n",
        "\ufeffpath,label\r\na/1.jpg,0\r\nb c/2.jpg,12\r\n",
        "label,path\n0,a/1.jpg\n12,b c/2.jpg\n",
        "width,path,label,note\n500,a/1.jpg,0,\n375,b c/2.jpg,12,blurred\n",
        " path , label \na/1.jpg , 0\n b c/2.jpg,12\n",
        'path,label\n"a/1.jpg","0"\n\n"b c/2.jpg",12\n',
        "path,label\na/1.jpg,0,more,cells\nb c/2.jpg,12\n",
    ],
)
def test_csv_tables_of_all_programs_parse_equally(text: str) -> None:
    assert pairs(parse_csv(text, "train.csv")) == [("a/1.jpg", 0), ("b c/2.jpg", 12)]


def test_a_csv_path_may_contain_a_comma() -> None:
    assert pairs(parse_csv('path,label\n"a, b.jpg",3\n', "t")) == [("a, b.jpg", 3)]


@pytest.mark.parametrize(
    ("header", "columns"),
    [("path,class", r"\['path', 'class'\]"), ("path;label", r"\['path;label'\]"), ("", r"\[\]")],
)
def test_a_csv_without_the_columns_is_reported_with_its_columns(header: str, columns: str) -> None:
    with pytest.raises(InputError, match=f"^t.csv: the header has {columns}; it must name `path`"):
        parse_csv(f"{header}\n", "t.csv")


def test_a_short_csv_row_is_reported() -> None:
    with pytest.raises(InputError, match=r"^t.csv:3: 'b.jpg' has no label") as caught:
        parse_csv("path,label\na.jpg,0\nb.jpg\n,0\n", "t.csv")
    assert caught.value.problems[1] == "t.csv:4: no path"


@pytest.mark.parametrize(
    "text",
    ["path,label\ra.jpg,0\r", 'path,label\n"a.jpg,0\n' + "b.jpg,0\n" * 20_000],
    ids=["line ends of old Macs", "a quote that never ends"],
)
def test_text_that_is_no_csv_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match=r"^t.csv: not a CSV table: "):
        parse_csv(text, "t.csv")


def test_class_folders_define_the_labels() -> None:
    files = ["data/train/dog/2.PNG", "data/train/cat/1.jpg", "data/train/cat/more/3.webp"]
    entries = parse_folders(files, ["cat", "dog"], "data/train")
    assert pairs(entries) == [(files[1], 0), (files[2], 0), (files[0], 1)]
    assert entries[0].source == files[1]


@pytest.mark.parametrize(
    "file",
    [
        "train/cat/.1.jpg",
        "train/cat/._1.jpg",  # macOS' resource fork
        "train/cat/.ipynb_checkpoints/1.jpg",
        "train/.cache/1.jpg",
        "train/cat/notes.txt",
        "train/cat/1.jpg.bak",
        "train/cat/Thumbs.db",
        "train/notes.txt",
        "train/cat/jpg",
    ],
)
def test_files_that_are_no_images_of_the_data_set_are_ignored(file: str) -> None:
    assert parse_folders([file], ["cat"], "train") == []


def test_the_folder_of_a_split_may_be_below_a_hidden_folder() -> None:
    assert pairs(parse_folders([".data/train/cat/1.jpg"], ["cat"], ".data/train")) == [
        (".data/train/cat/1.jpg", 0)
    ]


def test_an_image_of_a_class_unknown_to_train_is_reported() -> None:
    """A class that only val has could never be predicted."""
    files = ["val/cat/1.jpg", "val/cow/2.jpg", "val/3.jpg"]
    with pytest.raises(InputError) as caught:
        parse_folders(files, ["cat", "dog"], "val")
    assert caught.value.problems == (
        "val/3.jpg: not in one of the class folders of train: ['cat', 'dog']",
        "val/cow/2.jpg: not in one of the class folders of train: ['cat', 'dog']",
    )


def test_labels_from_0_without_gaps_are_valid() -> None:
    assert label_problems(splits([1, 0, 2, 2], [0], [2])) == []


@pytest.mark.parametrize(
    ("entries", "missing", "highest"),
    [
        (splits([1, 2]), "0", 2),  # counted from 1
        (splits([0, 1, 4]), "2, 3", 4),
        (splits([0, 1], val=[0, 2]), "2", 2),
        (splits([0, 1], test=[1, 3]), "2, 3", 3),
    ],
)
def test_each_class_must_be_in_train(
    entries: dict[str, list[Entry]], missing: str, highest: int
) -> None:
    (problem,) = label_problems(entries)
    assert problem == (
        f"train: no image of class {missing}; labels must be 0 to K-1 (the highest found is "
        f"{highest}) and each class must be present in train"
    )


def test_a_huge_label_is_reported_quickly() -> None:
    """A date instead of a label, say: neither time nor memory nor lines grow with it."""
    (problem,) = label_problems(splits([0, 1, 999_999_999]))
    assert problem.startswith("train: no image of class 2, 3, 4, 5, ")
    assert "21, ...; labels must be 0 to K-1 (the highest found is 999999999)" in problem


def test_empty_splits_are_reported() -> None:
    assert label_problems(splits([0, 1], [], [])) == [
        "val: no images listed",
        "test: no images listed",
    ]
    assert label_problems(splits([])) == [f"{split}: no images listed" for split in SPLITS]


def named(*images: tuple[str, int]) -> list[str]:
    return class_names([Entry(path, label, "") for path, label in images])


def test_classes_are_named_after_their_folders() -> None:
    images = (("train/dog/1.jpg", 1), ("train/cat/1.jpg", 0), ("val/dog/2.jpg", 1))
    assert named(*images) == ["cat", "dog"]


@pytest.mark.parametrize(
    "images",
    [
        (("1.jpg", 0), ("2.jpg", 1)),  # no folders
        (("all/1.jpg", 0), ("all/2.jpg", 1)),  # one folder for all
        (("cat/1.jpg", 0), ("kitten/2.jpg", 0), ("dog/3.jpg", 1)),  # two for one class
        (("cat/1.jpg", 0), ("cat/2.jpg", 1), ("dog/3.jpg", 1)),
        (("cat/1.jpg", 0), ("2.jpg", 1)),
    ],
)
def test_classes_without_a_folder_of_their_own_are_numbered(
    images: tuple[tuple[str, int], ...],
) -> None:
    assert named(*images) == ["class 0", "class 1"]


def test_empty_rows_of_a_spreadsheet_are_skipped() -> None:
    text = "path,label,note\na.jpg,0,\n,,\n , ,\nb.jpg,1,x\n"
    assert [entry.path for entry in parse_csv(text, "t.csv")] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("letter", ["\u2028", "\u0085", "\x0c", "\x1e"])
def test_only_line_ends_end_a_line(letter: str) -> None:
    """Python's splitlines also splits at other characters; a list file does not."""
    entries = parse_list(f"a{letter}b.jpg 0\r\nc.jpg 1\r\n", "t.txt")
    assert [(entry.path, entry.source) for entry in entries] == [
        (f"a{letter}b.jpg", "t.txt:1"),
        ("c.jpg", "t.txt:2"),
    ]
