"""Triton's interpreter, which runs the kernels on a CPU where TRITON_INTERPRET=1 is set."""

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""As it was when this process began: kernels are made for one or the other as they are imported."""


def prepare() -> None:
    """Let it count: Triton 3.6 takes int() of arrays with one entry, which numpy 2.4 refuses.

    And let it compare as a device does, where the larger of a number and NaN is the number.
    """
    import numpy
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched
    builder = interpreter.InterpreterBuilder
    builder.create_maxnumf = lambda self, x, y: self.binary_op(x, y, numpy.fmax)
    builder.create_minnumf = lambda self, x, y: self.binary_op(x, y, numpy.fmin)


if INTERPRETED:
    prepare()
