"""What the numbers are not: said under every table, in every run's note and on every page."""

from typing import Final

LIMITS: Final = (
    "Labels are perceived age, gender and race, estimated by a model and checked by one "
    "annotator: they are noisy, and they are not how people describe themselves.",
    "UTKFace names no persons, so the same person may stand in training and test; no check of "
    "pictures catches that. Weights trained for face recognition may have seen these people.",
    "Ranked by validation, never by test. Test was read once per run, after selection. An interval "
    "says how far another draw of test faces could move the number; it does not cover another "
    "training, and overlapping intervals alone do not say that two rows are equal.",
)

LIMITS_DRAWN: Final = (
    "DRAWN FACES: these are emblems drawn by a program. The numbers show that the benchmark "
    "works and say nothing about faces of people.",
)
