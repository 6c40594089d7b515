"""Statistics of classifiers: intervals, and the comparison of two models on the same images."""
