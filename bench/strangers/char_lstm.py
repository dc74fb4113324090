"""A character LSTM (2 x 128), published weights (ml5js); other places of the text that it was trained on."""

from bench.char_lstm import char_lstm, task


def job():
    """Return network and task."""
    return char_lstm(), task()
