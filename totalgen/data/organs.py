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
