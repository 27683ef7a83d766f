"""Trees in HDF5 files come back as they were, and files are never half written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mosaic_like import h5
from mosaic_like.types import Struct

h5py = pytest.importorskip("h5py")

if TYPE_CHECKING:
    from conftest import RunScript

_ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
_DTYPES = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | hnp.datetime64_dtypes()
    | hnp.timedelta64_dtypes()
    | hnp.byte_string_dtypes(max_len=5)
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
)
_ARRAYS = hnp.arrays(_DTYPES, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
_VALUES = st.recursive(
    _SCALARS | _ARRAYS | st.lists(st.integers()) | st.lists(st.text()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3).map(Struct)
        | st.dictionaries(st.text(), inner, max_size=3).map(Struct.write_once)
    ),
    max_leaves=8,
)
_TREES = st.dictionaries(st.text(st.characters()), _VALUES, max_size=4)


def _assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray | np.generic):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, Mapping):
        assert list(found) == list(expected)  # and in their order
        for key in expected:
            _assert_same(found[key], expected[key])
        if isinstance(expected, Struct):
            assert found.__getstate__()[1] == expected.__getstate__()[1]
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other)
    else:
        assert found == expected


# -- round trips -----------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(_TREES)
def test_every_tree_comes_back_as_it_was(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree.h5"
        h5.save(path, tree)
        _assert_same(h5.load(path), tree)
        for key, value in tree.items():
            _assert_same(h5.load(path, key), value)
        assert os.listdir(folder) == ["tree.h5"]


@settings(deadline=None, max_examples=30)
@given(_TREES)
def test_appending_to_nothing_or_all_at_once_is_saving(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree.h5"
        h5.append(path, tree)
        _assert_same(h5.load(path), tree)
        h5.append(path, {})
        _assert_same(h5.load(path), tree)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.lists(_SCALARS, max_size=3)
        | st.lists(st.integers(-5, 5), max_size=3)
        | st.lists(st.dictionaries(st.text(), _SCALARS, max_size=2), max_size=2),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
    st.booleans(),
)
def test_lists_are_joined_whatever_is_in_them(
    parts: list[list[Any]], saved: bool, in_place: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree.h5"
        (h5.save if saved else h5.append)(path, {"deep": Struct(items=parts[0])})
        for part in parts[1:]:
            h5.append(path, {"deep": {"items": part}}, in_place=in_place)
        _assert_same(h5.load(path, "deep", "items"), [x for p in parts for x in p])


@settings(deadline=None, max_examples=30)
@given(_DTYPES, st.integers(0, 3), st.booleans(), st.data())
def test_arrays_grow_along_their_first_axis(
    dtype: np.dtype[Any], width: int, saved: bool, data: st.DataObject
) -> None:
    arrays = hnp.arrays(dtype, st.tuples(st.integers(0, 3), st.just(width)))
    parts = data.draw(st.lists(arrays, min_size=1, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree.h5"
        (h5.save if saved else h5.append)(path, {"a": parts[0]})
        for part in parts[1:]:
            h5.append(path, {"a": part})
        expected = np.concatenate(parts).astype(dtype)
        _assert_same(h5.load(path, "a"), expected)


def test_texts_in_arrays_grow_longer(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    h5.save(path, {"a": np.array(["x", "ä"]), "one": np.str_("y")})
    h5.append(path, {"a": np.array(["longer"])})
    _assert_same(h5.load(path, "a"), np.array(["x", "ä", "longer"]))
    _assert_same(h5.load(path, "one"), np.str_("y"))


def test_arrays_of_any_layout_and_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    a = np.arange(24.0).reshape(2, 3, 4)
    tree: dict[str, Any] = {
        "strided": a[:, ::2],
        "fortran": np.asfortranarray(a),
        "records": np.array([(1, 2.0)], [("i", "i4"), ("f", "f8")]),
        "scalar": np.float32(1.5),
        "no dimensions": np.array(1.5),
    }
    h5.save(path, tree)
    back = h5.load(path)
    assert list(back) == list(tree)
    for name, value in tree.items():
        assert np.array_equal(back[name], value)
        assert back[name].dtype == value.dtype
    assert isinstance(back["scalar"], np.float32)
    assert isinstance(back["no dimensions"], np.ndarray)


def test_a_file_that_others_made_is_read_as_dicts_and_arrays(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["group/array"] = np.arange(3)
        file["number"] = 2.5
        file["text"] = "ä"
        file["texts"] = ["a", "b"]
        file["nothing"] = h5py.Empty("f4")
    back = h5.load(path)
    assert np.array_equal(back["group"]["array"], np.arange(3))
    assert (back["number"], back["text"], back["nothing"]) == (2.5, "ä", None)
    assert list(back["texts"]) == ["a", "b"]
    h5.append(path, {"group": {"array": np.arange(2)}})
    assert h5.load(path, "group", "array").tolist() == [0, 1, 2, 0, 1]


def test_large_arrays_are_compressed_and_small_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    tree = {"large": np.zeros(10_000), "small": np.zeros(10), "scalar": np.float64(1)}
    h5.save(path, tree, compression="gzip")
    assert path.stat().st_size < 40_000
    h5.append(path, {"large": np.ones(1)})
    assert h5.load(path, "large").shape == (10_001,)
    with h5py.File(path) as file:
        assert file["large"].compression == "gzip"
        assert file["small"].compression is None


# -- parts -----------------------------------------------------------------------------


def test_a_part_is_read_alone_and_a_missing_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    h5.save(path, {"a": {"b/c": [1, 2]}, "rows": [{"x": 1}, {"x": 2}], "z": 5})
    assert h5.load(path, "a", "b/c") == [1, 2]
    assert h5.load(path, "a", "b/c", -1) == 2
    assert h5.load(path, "rows", -1, "x") == 2
    for keys, text in {
        ("b",): r"no \['b'\]: the top has 'a', 'rows', 'z'",
        ("a", 0): r"no \['a'\]\[0\]: \['a'\] has 'b/c'",
        ("rows", 2): r"\['rows'\] has 2 items",
        ("rows", "x"): r"\['rows'\] has 2 items",
        ("a", "b/c", 2): r"has 2 items",
        ("z", "y"): r"\['z'\] has no parts \(int\)",
    }.items():
        with pytest.raises(LookupError, match=text):
            h5.load(path, *keys)


# -- what cannot be written ------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ({1, 2}, TypeError, r"\['a'\]\[1\]\['b'\]: set cannot be written"),
        ({1: 2}, TypeError, r"\['b'\]\[1\]: keys are strings here, found 1 \(int\)"),
        (np.array([None]), TypeError, r"\['b'\]: an array of dtype object"),
        (np.ma.array([1], mask=[True]), TypeError, r"\['b'\]: a masked array"),
        (
            np.zeros(1, [("t", "M8[s]")]),
            TypeError,
            r"\['b'\]: an array of dtype .*HDF5: ",
        ),
        (np.array(["a\0b"]), ValueError, r"\['b'\]: an array of dtype <U3 .*HDF5: "),
    ],
)
def test_what_cannot_be_written_is_told_with_its_place_and_nothing_changes(
    value: Any, kind: type[Exception], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.h5"
    h5.save(path, {"before": 1})
    for write in (h5.save, h5.append):
        with pytest.raises(kind, match=text):
            write(path, {"a": [0, {"b": value}]})
        assert h5.load(path) == {"before": 1}
        assert os.listdir(tmp_path) == ["a.h5"]


def test_a_dict_that_holds_itself_is_refused(tmp_path: Path) -> None:
    tree: dict[str, Any] = {"a": [], "same": [1]}
    tree["twice"] = tree["same"]  # that is no circle
    h5.save(tmp_path / "a.h5", tree)
    tree["a"].append(tree)
    for write in (h5.save, h5.append):
        with pytest.raises(ValueError, match=r"\['a'\]\[0\]: this dict holds itself"):
            write(tmp_path / "a.h5", tree)


def test_wrong_arguments_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(TypeError, match=r"save\(\) takes a dict .* found list"):
        h5.save(path, [1])  # type: ignore[arg-type] # what is tested
    with pytest.raises(ValueError, match="compression: found 'zip', expected None or"):
        h5.save(path, {}, compression="zip")
    with pytest.raises(FileNotFoundError, match=r"a\.h5: there is no such file"):
        h5.load(path)
    for write in (h5.save, h5.append):
        with pytest.raises(FileNotFoundError, match="there is no directory"):
            write(tmp_path / "no" / "a.h5", {})
        with pytest.raises(OSError, match="directory"):
            write(tmp_path, {})
    path.write_text("text")
    for use in (lambda: h5.load(path), lambda: h5.append(path, {"a": 1})):
        with pytest.raises(OSError, match=r"a\.h5: is no HDF5 file"):
            use()
    assert path.read_text() == "text"
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ({"int": 1}, ValueError, r"\['int'\]: there is a value \(int\) already"),
        ({"int": [1]}, TypeError, r"\(int\) already, to which list cannot"),
        ({"list": {}}, TypeError, r"\(list\) already, to which dict cannot"),
        ({"list": (1,)}, TypeError, r"\(list\) already, to which tuple cannot"),
        ({"dict": 1}, TypeError, r"\(dict\) already, to which int cannot"),
        ({"array": [1]}, TypeError, r"\(array\) already, to which list cannot"),
        ({"array": np.ones((1, 3))}, ValueError, r"\(1, 3\), expected \('n', 2\)"),
        ({"array": np.ones(2)}, ValueError, r"only the first axis"),
        ({"array": np.array(1.0)}, ValueError, r"no dimensions cannot grow"),
        ({"array": np.ones((1, 2))}, TypeError, r"float64, in the file it is float32"),
    ],
)
def test_what_cannot_be_joined_is_told_and_nothing_changes(
    value: dict[str, Any], kind: type[Exception], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.h5"
    tree = {"int": 0, "list": [1], "dict": {}, "array": np.ones((1, 2), "f4")}
    h5.save(path, tree)
    with pytest.raises(kind, match=text):
        h5.append(path, {"new": 1, **value})
    _assert_same(h5.load(path), tree)


def test_without_h5py_the_command_is_told(run_script: RunScript) -> None:
    result = run_script(
        "import sys; sys.modules['h5py'] = None\n"
        "from mosaic_like import h5\n"
        "for call in (lambda: h5.save('a', {}), lambda: h5.load('a'),\n"
        "             lambda: h5.append('a', {})):\n"
        "    try: call()\n"
        "    except ModuleNotFoundError as error: print(error)\n"
    )
    assert result.stdout == 3 * (
        'mosaic_like.h5 needs h5py: pip install "mosaic_like[h5]"\n'
    )


def test_importing_it_brings_neither_h5py_nor_numpy(run_script: RunScript) -> None:
    result = run_script(
        "import sys; from mosaic_like import h5\n"
        "print({'h5py', 'numpy'} & set(sys.modules))"
    )
    assert result.stdout == "set()\n"


# -- files -----------------------------------------------------------------------------


def test_a_new_file_has_the_umask_and_a_replaced_one_keeps_its_mode(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.h5"
    before = os.umask(0o027)
    try:
        h5.save(path, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    h5.save(path, {"a": 1})
    h5.append(path, {"b": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_link_goes_on_leading_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.h5"
    link.symlink_to(tmp_path / "real" / "a.h5")
    h5.save(link, {"a": 1})
    h5.append(link, {"b": 2})
    assert link.is_symlink()
    assert h5.load(tmp_path / "real" / "a.h5") == {"a": 1, "b": 2}


def test_a_reader_keeps_what_it_had_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    h5.save(path, {"a": np.zeros(3)})
    with h5py.File(path) as file:
        h5.save(path, {"a": np.ones(3)})
        h5.append(path, {"a": np.ones(1)})
        assert file["a"][()].tolist() == [0, 0, 0]
    assert h5.load(path, "a").tolist() == [1, 1, 1, 1]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, run_script: RunScript) -> None:
    """A limit on the size of files stands for it."""
    path = tmp_path / "a.h5"
    h5.save(path, {"a": np.arange(1000)})
    for function in ("save", "append"):
        result = run_script(
            "import resource, sys\n"
            "import numpy as np\n"
            "from mosaic_like import h5\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "try: getattr(h5, sys.argv[1])(sys.argv[2], {'b': np.ones(1_000_000)})\n"
            "except OSError as error: print('File too large' in str(error))\n",
            function,
            str(path),
        )
        assert result.stdout == "True\n", result.stderr
        assert h5.load(path, "a").tolist() == list(range(1000))
        assert os.listdir(tmp_path) == ["a.h5"]


def test_programs_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    code = (
        "import sys; from mosaic_like import h5\n"
        "for k in range(5): h5.append(sys.argv[1], {'rows': [int(sys.argv[2])]})"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(n)], env=_ENV)
        for n in range(3)
    ]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert sorted(h5.load(path, "rows")) == [n for n in range(3) for _ in range(5)]
    assert os.listdir(tmp_path) == ["a.h5"]
