"""A hint below every NameError in a notebook: mostly, the cell that defines the name has not run.

The setup cell switches it on. `make lab` names this file as PYTHONSTARTUP, which IPython runs in every new kernel, so
that it is on even for those who have not run the setup cell.
"""


def explain_unknown_names(shell) -> None:
    """Add the hint to an IPython shell.

    Args:
        shell: what ``get_ipython()`` returns; None does nothing.

    Example:
        >>> explain_unknown_names(None)
    """

    def with_a_hint(shell, kind, error, traceback, tb_offset=None) -> None:  # IPython's way of calling it
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
        if kind is NameError and error.name:
            print(
                f"Hint: nothing is called `{error.name}` here yet. Either it is misspelt, or the cell that defines it "
                "has not run\nsince the kernel started. To run all cells up to here, SETUP included: "
                "menu Run → Run All Above Selected Cell\n(in Colab: Runtime → Run before)."
            )

    if shell:
        shell.set_custom_exc((NameError,), with_a_hint)


if __name__ == "__main__":  # IPython runs this in the namespace of the notebook: nothing may stay there
    explain_unknown_names(globals().get("get_ipython", lambda: None)())
    del explain_unknown_names
