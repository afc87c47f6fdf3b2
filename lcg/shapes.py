"""Array shapes in signatures: `Float[Tensor, "b h q d"]`, the legend being each module's docstring.

The test run enforces them, with jaxtyping and beartype; neither is needed to use the program, and
without them an annotation says no more than `Tensor`.
"""

try:
    from jaxtyping import Bool, Float, Int, Shaped
except ModuleNotFoundError:

    class _Unchecked:
        def __class_getitem__(cls, array_and_shape):
            return array_and_shape[0]

    Bool = Float = Int = Shaped = _Unchecked

__all__ = ["Bool", "Float", "Int", "Shaped"]
