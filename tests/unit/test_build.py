"""The pure parts of the build pool: what bindings an object asks for, what is kept, what is shown."""

import os

import pytest

from kernelverify.build import bindings, errors, flags, service

ONE = "void kernelverify::bind_guarded<at::Tensor (at::Tensor)>(void*, char const*, void*, char const*)"
ODD = "void kernelverify::bind<double (at::Tensor const&, long)>(void*, char const*, void*, char const*)"
SYMBOLS = f"""
main.cpp.o:
                 U at::_ops::empty_like::call(at::Tensor const&)
                 U {ONE}
                 U {ODD}
                 U kernelverify::initialise()
"""


def test_only_unusual_bindings_are_made_on_demand():
    assert ONE in bindings.usual()
    assert bindings.unusual(SYMBOLS) == (ODD,)


def test_a_readable_symbol_is_an_explicit_instantiation():
    assert bindings.source([ODD]) == f"#include <kernelverify/bindings.h>\ntemplate {ODD};\n"
    assert bindings.source([], module=True) == "#include <kernelverify/module.h>\n"


@pytest.mark.parametrize("trick", ['"x"', "x; int y", "x\n#include", "{", "\\", "#"])
def test_a_symbol_with_anything_but_types_is_no_binding(trick):
    assert bindings.unusual(SYMBOLS.replace("double", trick)) == ()


def test_objects_without_a_module_need_no_bindings():
    assert bindings.has_module(SYMBOLS)
    assert not bindings.has_module(SYMBOLS.replace("kernelverify::initialise()", "other::initialise()"))


@pytest.mark.parametrize("text", ["py::list x;", "#include <pybind11/stl.h>", "torch::nn::functional::relu(x)"])
def test_sources_that_need_all_of_torch_skip_the_lean_header(text):
    assert bindings.needs_everything(["int x;", text])


@pytest.mark.parametrize("text", ["PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {", "torch::empty(3)", "int copy::x;"])
def test_ordinary_sources_take_the_lean_header(text):
    assert not bindings.needs_everything([text])


def test_torchs_headers_decide_and_the_lean_ones_may_list_more():
    lean = "cpp_sources[0]:3:1: error: 'n' was not declared\ncpp_sources[0]:9:1: error: 'm' was not declared"
    same, other = lean.splitlines()[0], "cpp_sources[0]:5:1: error: expected ';'"

    assert errors.fuller(lean, same) == lean
    assert errors.fuller(lean, other) == other


@pytest.mark.parametrize("flag", ["-Wall", "-Wextra", "-Wpedantic", "-Wno-unused"])
def test_warnings_may_be_asked_for(flag):
    assert flags.allowed_to_compile(flag)


@pytest.mark.parametrize("flag", ["-Wl,-rpath,/", "-Wa,-al", "-Wp,-D"])
def test_nothing_is_passed_through_to_other_tools(flag):
    assert not flags.allowed_to_compile(flag)


def test_the_longest_unused_goes_first(tmp_path):
    for age, name in enumerate(["new", "middle", "old"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.so").write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))

    service._evict(list(tmp_path.iterdir()), 250)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["middle", "new"]


def test_what_is_published_cannot_be_written_and_comes_in_one_step(tmp_path):
    for content in ("first", "second"):
        made = tmp_path / "made"
        made.mkdir()
        (made / "module.so").write_text(content)
        service._publish(made, tmp_path / "cache/digest")

    published = tmp_path / "cache/digest/module.so"
    assert published.read_text() == "first"
    assert published.stat().st_mode & 0o777 == 0o444
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["digest"]
