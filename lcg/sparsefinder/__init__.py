"""Sparsefinder (2109.12188): predict which keys a query gives weight to, before any score is made.

graphs         samples; queries, keys and the gold graph of every attention layer, from outside
projections    what is learned of a layer: per head a linear map to few dimensions, and centroids
predictors     graphs from projected queries and keys: distance, buckets, intervals, clusters
baselines      graphs of places (window, random, Longformer, BigBird, strided) and of content: LSH,
               routing, the norm bound, and the exact graph
grid           the methods and settings that a study compares
metrics        sparsity, recall, exact queries, mass, and the identity on what is fully predicted
restricting    the model's accuracy when its attention may use a graph only
study          all methods at all lengths; writing and plots make something of it
"""

from lcg.attention.normalizers.base import Normalizer


def check_sparse(normalizer: Normalizer) -> None:
    """Raise ValueError for a normalizer that has no zeros by design; without torch."""
    if not normalizer.sparse or getattr(normalizer, "alpha", None) == 1:
        raise ValueError(
            f"normalizer={normalizer.name} gives weight to every key that a query sees, so there "
            "is no graph to predict; use a run with entmax, entmax_learned, relu or topk, or a "
            "class of your own that says `sparse: ClassVar[bool] = True` and has support_edge()"
        )
