"""Any tree of class folders, your own for instance."""

from __future__ import annotations

from pathlib import Path

from fewshot.data.datasets.base import ClassFolders, FolderDataset, Split, check_apart, class_folders
from fewshot.data.images import MAX_CACHED_BYTES
from fewshot.data.transforms import Preprocessing
from fewshot.files import expanded

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFolderSplits(FolderDataset):
    """Pictures laid out as `<root>/<split>/<class>/<picture>`, in the formats of `fewshot.data.pictures.FORMATS`.

    Folders below a class folder belong to the class. Files that are left out are counted in a warning. Classes and
    pictures are taken in the order of their names. Grey, palette and transparent pictures (white behind
    them) become RGB, and EXIF rotation is applied.

    Args:
        root: the folder that holds the split folders; `~` and environment variables are filled in.
        image_size: side in pixels of what the backbone receives.
        stored_size: side in pixels to which pictures are resized first; image_size where None.
        train_folder: name of the folder of training classes.
        val_folder: the same of validation classes.
        test_folder: the same of test classes.
        name: for file names and results; the last part of root where None.
        mean: per channel, of intensities in 0..1; ImageNet's by default.
        std: the same.
        channels: 3 for RGB, 1 for grey.
        interpolation: nearest, bilinear, bicubic or lanczos.
        crop_padding: pixels of zero around a picture from which training crops are cut.
        colour_jitter: strength in 0..1 of the training jitter of brightness, contrast and saturation.
        flip: whether training pictures are mirrored at random; switch it off where left and right matter.
        invert: whether intensities are reversed, for dark ink on white paper.
        max_cached_bytes: splits larger than this, decoded, are decoded at each reading instead of once.
    """

    help_text = "put pictures there as <root>/<split>/<class>/<picture>, or set root"

    def __init__(
        self,
        root: str,
        image_size: int = 84,
        *,
        stored_size: int | None = None,
        train_folder: str = "train",
        val_folder: str = "val",
        test_folder: str = "test",
        name: str | None = None,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        channels: int = 3,
        interpolation: str = "bilinear",
        crop_padding: int = 8,
        colour_jitter: float = 0.4,
        flip: bool = True,
        invert: bool = False,
        max_cached_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        self.root = root
        self.name = expanded(root).absolute().name if name is None else name
        self.folders: dict[Split, str] = {"train": train_folder, "val": val_folder, "test": test_folder}
        self.max_cached_bytes = max_cached_bytes
        self.preprocessing = Preprocessing(
            image_size=image_size,
            stored_size=image_size if stored_size is None else stored_size,
            mean=of_channels(mean, channels),
            std=of_channels(std, channels),
            channels=channels,
            interpolation=interpolation,
            crop_padding=crop_padding,
            colour_jitter=colour_jitter,
            flip=flip,
            invert=invert,
        )

    def classes(self, root: Path, split: Split) -> ClassFolders:
        """The class folders in the split's folder; none of them may be in another split's."""
        classes = class_folders(root / self.folders[split], name=self.name, split=split)
        folders = {other: root / folder for other, folder in self.folders.items()}
        check_apart(classes, folders, name=self.name, split=split)
        return classes


def of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """A value for each channel, from one for all, or of RGB for grey; others as they are, which are refused then."""
    if len(values) == channels or len(values) not in (1, 3):
        return values
    return (sum(values) / len(values),) * channels
