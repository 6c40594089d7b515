"""Small image classifiers, compared honestly: data, models, training, evaluation and costs."""
