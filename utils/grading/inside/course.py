"""The course's modules inside the sandbox: from texts that were sent, never from files.

The trusted process takes the right answers of unsolved exercises out of these texts (``utils.grading.hiding``) and
sends each definition later, once the exercise that asks for it is over: ``reveal`` then fills it in, in place, so
that whatever the learner's code took hold of before works from then on.
"""

import __future__

import abc
import importlib
import importlib.abc
import importlib.machinery
import inspect
import sys
from types import CodeType, ModuleType
from typing import Any

NOT_FOR_LEARNERS = {"transformers"}  # has ready-made answers, and is no package of the course
FOLDER = "/course"  # where the modules seem to lie; nothing is there


class CourseFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports modules from texts, by full name; a name that others extend is a package."""

    def __init__(self, sources: dict[str, str]):
        self.sources = sources

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """The spec of a course module, None for any other; there is none of what only the course's tests need."""
        if fullname in NOT_FOR_LEARNERS:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        if fullname not in self.sources:
            return None
        spec = importlib.machinery.ModuleSpec(
            fullname, self, origin=self.path(fullname), is_package=self.is_package(fullname)
        )
        spec.has_location = True  # sets __file__, by which the modules find their data folder
        return spec

    def get_code(self, fullname: str) -> CodeType:
        """The compiled text, under the name of the file it seems to come from."""
        return compile(self.sources[fullname], self.path(fullname), "exec", dont_inherit=True)

    def path(self, fullname: str) -> str:
        """The file that a module seems to come from."""
        tail = "/__init__.py" if self.is_package(fullname) else ".py"
        return f"{FOLDER}/{fullname.replace('.', '/')}{tail}"

    def is_package(self, fullname: str) -> bool:
        """Whether other modules lie in this one."""
        return any(name.startswith(fullname + ".") for name in self.sources)

    def get_source(self, fullname: str) -> str:
        """The text of a module."""
        return self.sources[fullname]


def reveal(module_name: str, name: str, source: str) -> None:
    """Fill a definition in that was hidden until now.

    Args:
        module_name: where it belongs.
        name: what it is called there.
        source: its text.
    """
    module = importlib.import_module(module_name)
    hidden = getattr(module, name)
    # annotations stay texts: some modules name types in them that they import for checkers only
    exec(compile(source, module.__file__, "exec", __future__.annotations.compiler_flag), module.__dict__)
    real = getattr(module, name)
    if isinstance(hidden, type):
        del hidden.__init__
        for key, value in vars(real).items():
            if key not in ("__dict__", "__weakref__"):
                setattr(hidden, key, value)
            for cell in getattr(value, "__closure__", None) or ():
                if cell.cell_contents is real:  # what a bare super() looks for
                    cell.cell_contents = hidden
        abc.update_abstractmethods(hidden)
    else:
        inspect.unwrap(hidden).__code__ = inspect.unwrap(real).__code__
    setattr(module, name, hidden)


def new_main_module() -> ModuleType:
    """An empty ``__main__``, in which a notebook's cells run."""
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    return main
