"""The 13 data sets of BUTTER, and the checksums that pin their content: a table, nothing else.

The dimensions are those after encoding, which BUTTER's own documentation gets wrong in places;
`pmlb.py` finds the files, `encoding.py` does the encoding and the tests hold both against this
table. `poker` is not here because BUTTER never published it.
Source: `dataset_shape_map` of the BUTTER framework, the git-LFS pointers of PMLB.
"""

from minibutter.datasets.dataset import DatasetInfo

# 201_pol is a regression in PMLB; BUTTER ran it as a classification of its 11 values.
# 294_satellite_image is a regression in PMLB; BUTTER ran it with six one-hot outputs and sigmoids,
# and calls it a classification since, as we do.
# banana has a target of two values and is nevertheless a regression, in PMLB and in BUTTER.
_BUTTER_SETS = (
    # name, task, rows, inputs, outputs
    DatasetInfo("201_pol", "classification", 15_000, 26, 11),
    DatasetInfo("294_satellite_image", "classification", 6_435, 36, 6),
    DatasetInfo("505_tecator", "regression", 240, 124, 1),
    DatasetInfo("529_pollen", "regression", 3_848, 4, 1),
    DatasetInfo("537_houses", "regression", 20_640, 8, 1),
    DatasetInfo("adult", "binary", 48_842, 81, 1),
    DatasetInfo("banana", "regression", 5_300, 2, 1),
    DatasetInfo("connect_4", "classification", 67_557, 126, 3),
    DatasetInfo("mnist", "classification", 70_000, 784, 10),
    DatasetInfo("nursery", "classification", 12_958, 26, 4),
    DatasetInfo("sleep", "classification", 105_908, 141, 5),
    DatasetInfo("splice", "classification", 3_188, 287, 3),
    DatasetInfo("wine_quality_white", "classification", 4_898, 11, 7),
)
BUTTER = {info.name: info for info in _BUTTER_SETS}

# SHA-256 of NAME.tsv.gz. The first of each is that of PMLB's present file, the one to download.
# The older revision of banana codes its target -1/1 instead of 0/1, and encodes to the same arrays.
SHA256 = {
    "201_pol": ("bfd1b9c6e5f6314f6ddfc285ace11381570ad688c6c857562c3155a4e478530d",),
    "294_satellite_image": ("4a65cdd640642af2c5d3c6a53b61e563156feb14bd26486dc9d5f47140c0690f",),
    "505_tecator": ("4a2bfb8dd7b1b617c1d7ffe8ae85a3dade9178e5d5dd6aa049189843321e1ff3",),
    "529_pollen": ("2e9414f0216e75296ba4211c567dd8a60d269273b38f8e00bd8fea3a37d2e654",),
    "537_houses": ("d383fd58bb79760ffaf0b615942fd47d926a19e75a8f980b79fbe9ad479d9cbf",),
    "adult": ("fb8bc76eafa39558b6044907f23416faf99099cefb8afd06a2cf5afbdae1b506",),
    "banana": (
        "546c047502ad902c099a627f831f338bc77e824d2e7cadcc2733bd3d6a0a949e",
        "f3ade821f9a0caebdd8b244319e66932c4b453ade027f42f86ed8ea1a50251ba",
    ),
    "connect_4": ("e283074e1123d23361332bd83414c172640d2596fc076d1e20e8f4a64a658137",),
    "mnist": ("5b1d8788d9512819fd46d1acf1e86e70cb5f4418c8e8bfe299ebd3abf2188217",),
    "nursery": ("5e56c09fc2c6a983c031879fe7de5fc945c44db2ca65f10fc5f5b6fc770489ff",),
    "sleep": ("da326113ba8074a5931eb92db0c9acbe8a0ffff62aa916b11a761bdef11231ce",),
    "splice": ("30f7c126059de9f5962c41bbfbdee2926ea9432e4d620930ce6db79a43885510",),
    "wine_quality_white": ("0d39f17afc3a1712bd6c460aa941aed7835b3feb142538adfdd31ddc2451d60d",),
}
