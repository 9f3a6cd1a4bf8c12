"""What docs/versions.md calls public is there as it says, in the installed packages and for type checkers."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

import pipelines
import tin
from tests.conftest import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "versions.md"


def documented() -> list[str]:
    """The lines of the list of public names."""
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition("## Public names")
    return rest.partition("```text\n")[2].partition("```")[0].splitlines()


def described(name: str, thing: Any) -> Iterator[str]:
    """Lines that change when a caller would notice."""
    if not callable(thing):
        yield name
        return
    if isinstance(thing, type) and (issubclass(thing, BaseException) or getattr(thing, "_is_protocol", False)):
        yield name
    else:
        yield f"{name}{arguments(thing)}"
    if isinstance(thing, type):
        for member, value in sorted(vars(thing).items()):
            function = value.__func__ if isinstance(value, classmethod) else value
            if member.startswith("_"):
                continue
            if isinstance(function, property):
                yield f"    .{member}"
            elif inspect.isfunction(function) and function.__module__.split(".")[0] in ("tin", "pipelines"):
                yield f"    .{member}{arguments(function)}"


def arguments(function: Any) -> str:
    signature = inspect.signature(function)
    shown = [
        parameter.replace(annotation=inspect.Parameter.empty, default=Shown(parameter.default))
        if parameter.default is not inspect.Parameter.empty
        else parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls")
    ]
    return str(signature.replace(parameters=shown, return_annotation=inspect.Signature.empty))


class Shown:
    """A default as it is written, not as Python shows it."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        if callable(self.value):
            return str(self.value.__name__)  # type: ignore[attr-defined]
        return f"{type(self.value).__name__}()" if isinstance(self.value, BaseModel) else repr(self.value)


def resolve(name: str) -> Any:
    """What a user gets who imports the package alone."""
    package, *rest = name.split(".")
    thing: Any = importlib.import_module(package)
    for part in rest:
        thing = getattr(thing, part)
    return thing


def test_the_list_of_public_names_is_what_there_is() -> None:
    names = [found[0] for line in documented() if (found := re.match(r"[\w.]+", line))]
    now = [line for name in names for line in described(name, resolve(name))]
    assert documented() == now, "the public names differ from docs/versions.md; the list as it is now:\n" + "\n".join(
        now
    )


@pytest.mark.parametrize("package", [tin, pipelines])
def test_the_packages_offer_what_is_documented_and_nothing_else(package: ModuleType) -> None:
    name = package.__name__
    listed = {found[1] for line in documented() if (found := re.match(rf"{name}\.(\w+)", line))}
    assert listed == set(package.__all__)
    assert sorted(package.__all__) == package.__all__
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


SCRIPT = """
import pipelines
import tin
from pipelines.motion import MotionSettings

videos = pipelines.VideoList.from_files("a.mp4")
reveal_type(videos)
reveal_type(tin.load_trained("a.pt").recipe)
reveal_type(next(tin.predict(tin.build_model("tin_resnet18", 3), [])).labels)
reveal_type(tin.evaluation.compute)
reveal_type(pipelines.sampling.segment_indices)
MotionSettings(train="8")
tin.buld_model("tin_resnet18", 3)
"""


_IS_NOT_SOURCE = {"__pycache__", "lib"}


@pytest.mark.slow
def test_what_is_installed_is_whole_and_a_type_checker_sees_its_types(tmp_path: Path) -> None:
    """What goes into a wheel, in an environment of its own, seen from a script outside."""
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    build = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(site)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    sources = [path.relative_to(REPOSITORY) for room in ("tin", "pipelines") for path in (REPOSITORY / room).rglob("*")]
    built = {path.relative_to(site) for path in site.rglob("*")}
    assert {Path("tin", "py.typed"), Path("pipelines", "py.typed")} <= built
    # a data file that pyproject.toml does not name would be missed by those who install a wheel
    assert [str(path) for path in sources if path not in built and not _IS_NOT_SOURCE & {*path.parts}] == []
    (tmp_path / "script.py").write_text(SCRIPT)
    # without what the packages import: that takes a minute to check, and has types of its own
    python = str(tmp_path / "env" / "bin" / "python")
    check = [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", "cache", "--config-file", ""]
    said = subprocess.run([*check, "script.py"], cwd=tmp_path, capture_output=True, text=True).stdout
    revealed = re.findall(r'script\.py:\d+: note: Revealed type is "(.*)"', re.sub(r"(builtins|typing)\.", "", said))
    assert revealed[:3] == ["pipelines.annotations.VideoList", "tin.recipes.schema.Recipe", "tuple[str, ...] | None"], (
        said
    )
    assert revealed[3].startswith("def (names: Sequence[str], scores:"), said
    assert revealed[4].startswith("def (num_frames: int, num_segments: int, mode: str"), said
    assert 'Argument "train" to "MotionSettings" has incompatible type "str"; expected "int"' in said
    assert 'Module has no attribute "buld_model"' in said


def test_the_version_comes_from_the_package() -> None:
    command = [sys.executable, "setup.py", "--quiet", "--version"]
    built = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split()[-1]
    assert built == tin.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", built)
    assert built in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
