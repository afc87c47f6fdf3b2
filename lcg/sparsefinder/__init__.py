"""Sparsefinder (2109.12188): predict which keys a query gives weight to, before any score is made.

graphs         samples; queries, keys and the gold graph of every attention layer, from outside
projections    what is learned of a layer: per head a linear map to few dimensions, and centroids
predictors     graphs from projected queries and keys: distance, buckets, intervals, clusters
patterns       graphs that look at places only: window, random, Longformer, BigBird, strided
baselines      graphs that look at content: LSH, routing, the norm bound, and the exact graph
grid           the methods and settings that a study compares
metrics        sparsity, recall, exact queries, mass, and the identity on what is fully predicted
restricting    the model's accuracy when its attention may use a graph only
study          all methods at all lengths; writing and plots make something of it
"""
