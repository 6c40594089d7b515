"""Small image classifiers, compared honestly: data, models, training, scores and costs."""
