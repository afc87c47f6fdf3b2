"""Sparsefinder (2109.12188): predict which keys a query gives weight to, before any score is made.

collecting     queries, keys and the gold graph of every attention layer, from outside the model
projections    per head a linear map to few dimensions, learned with a margin loss
knowledge      what is learned of a layer: projections, and centroids for clustering and routing
predictors     graphs from projected queries and keys: distance, buckets, intervals, clusters
patterns       graphs that look at places only: window, random, Longformer, BigBird, strided
baselines      graphs that look at content: LSH, routing, the norm bound, and the exact graph
grid           the methods and settings that a study compares
measuring      sparsity, recall, exact queries, mass, and the identity on what is fully predicted
restricting    the model's accuracy when its attention may use a graph only
study          all methods at all lengths; fronts, drawing and writing make something of it
"""
