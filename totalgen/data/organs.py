"""Organ labels: the ids of TotalSegmentator's `total` task, in every mask of the project."""

ORGANS = {
    "spleen": 1,
    "kidney_right": 2,
    "kidney_left": 3,
    "liver": 5,
    "stomach": 6,
    "pancreas": 7,
    "urinary_bladder": 21,
    "sacrum": 25,
    "heart": 51,
    "scapula_left": 71,
    "scapula_right": 72,
    "clavicula_left": 73,
    "clavicula_right": 74,
    "hip_left": 77,
    "hip_right": 78,
}

# What the published table measures (kidneys counted together), and the spleen.
MEASURED = {
    "liver": (ORGANS["liver"],),
    "heart": (ORGANS["heart"],),
    "kidneys": (ORGANS["kidney_right"], ORGANS["kidney_left"]),
    "spleen": (ORGANS["spleen"],),
}

# Bones whose height in the field says whether a body is proportioned as it should be, from the pelvis to the head. The
# vertebrae are known to TotalSegmentator only; the phantom and the shipped segmenter have the others.
LEVELS = ("S1", *(f"L{n}" for n in range(5, 0, -1)), *(f"T{n}" for n in range(12, 0, -1)),
          *(f"C{n}" for n in range(7, 0, -1)))  # fmt: skip
LANDMARKS = {
    "hips": (ORGANS["hip_left"], ORGANS["hip_right"]),
    "sacrum": (ORGANS["sacrum"],),
    **{f"vertebra {level}": (26 + n,) for n, level in enumerate(LEVELS)},
    "scapulae": (ORGANS["scapula_left"], ORGANS["scapula_right"]),
    "clavicles": (ORGANS["clavicula_left"], ORGANS["clavicula_right"]),
}
