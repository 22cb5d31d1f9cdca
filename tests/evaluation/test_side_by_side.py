"""The picture shows the slice with the most in it, and where a candidate differs."""

import imageio.v3 as imageio
import numpy as np
import pytest

from totalgen.data.volume import Volume, write_nifti
from totalgen.evaluation.side_by_side import side_by_side


@pytest.fixture
def files(tmp_path):
    truth = np.zeros((12, 10, 16), np.float32)
    truth[3:9, 6:8, 4:12] = 5.0  # in the coronal slices 6 and 7
    wrong = truth.copy()
    wrong[3:9, 6, 4:12] += 2.0
    for name, voxels in dict(truth=truth, same=truth, wrong=wrong, std=0.1 * truth).items():
        write_nifti(tmp_path / f"{name}.nii.gz", Volume(voxels, np.diag([2.0, 2, 4, 1])))
    return {name: tmp_path / f"{name}.nii.gz" for name in ("truth", "same", "wrong", "std")}


def test_only_the_wrong_candidate_has_errors(files, tmp_path):
    def reds(**candidates):
        side_by_side(tmp_path / "made.png", files["truth"], candidates, (0, 8))
        picture = imageio.imread(tmp_path / "made.png")[..., :3].astype(int)
        return int((picture[..., 0] - picture[..., 2] > 60).sum())

    bar = reds(one=files["same"], two=files["truth"])  # the colour bar alone
    assert reds(one=files["same"], two=files["wrong"]) > bar + 100
    assert reds(one=files["truth"], two=files["same"]) == bar


def test_a_map_stands_below_the_reference(files, tmp_path):
    for name, maps in dict(without={}, with_map={"std": files["std"]}).items():
        side_by_side(tmp_path / f"{name}.png", files["truth"], {"same": files["same"]}, (0, 8), maps, inverted=True)
    pictures = [imageio.imread(tmp_path / f"{name}.png")[..., :3].min(2) for name in ("without", "with_map")]
    dark = [(picture < 20).mean() for picture in pictures]
    assert dark[1] > dark[0] + 0.02  # the map's background is black


def test_what_the_candidates_were_made_of_stands_there_without_a_map(files, tmp_path):
    for name, given in dict(without=None, with_ct=("CT", files["std"])).items():
        side_by_side(tmp_path / f"{name}.png", files["truth"], {"same": files["same"]}, (0, 8), given=given)
    pictures = [imageio.imread(tmp_path / f"{name}.png")[..., :3].max(2) for name in ("without", "with_ct")]
    lower = [picture[picture.shape[0] // 2 :, : picture.shape[1] // 3] for picture in pictures]
    assert (lower[1] < 20).mean() > (lower[0] < 20).mean() + 0.1  # around the CT there is air
