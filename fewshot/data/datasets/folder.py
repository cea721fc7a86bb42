"""Any tree of class folders, your own for instance."""

from __future__ import annotations

from fewshot.data.datasets.base import (
    SPLITS,
    FewShotDataset,
    Split,
    check_split,
    class_folders,
    expanded,
    find_root,
    images_of_files,
    subfolders,
)
from fewshot.data.images import MAX_CACHED_BYTES, Images
from fewshot.data.transforms import Preprocessing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFolderSplits(FewShotDataset):
    """Pictures laid out as `<root>/<split>/<class>/<picture>`, in any format Pillow reads among png jpg jpeg webp bmp.

    Classes and pictures are taken in the order of their names. Grey, palette and transparent pictures (white behind
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
            mean=mean if len(mean) == channels else (sum(mean) / len(mean),) * channels,
            std=std if len(std) == channels else (sum(std) / len(std),) * channels,
            channels=channels,
            interpolation=interpolation,
            crop_padding=crop_padding,
            colour_jitter=colour_jitter,
            flip=flip,
            invert=invert,
        )

    def images(self, split: Split, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split.

        Raises:
            FileNotFoundError: no such root, or no folder of that split.
            ValueError: an empty split, a class without pictures, classes shared with another split, and (when it is
                decoded) a picture that cannot be read.
        """
        check_split(self.name, split)
        root = find_root(
            self.root, name=self.name, help_text="put pictures there as <root>/<split>/<class>/<picture>, or set root"
        )
        classes = class_folders(root / self.folders[split], name=self.name, split=split)
        for other in SPLITS:
            folder = root / self.folders[other]
            if other == split or not folder.is_dir():
                continue
            shared = [path.name for path in subfolders(folder) if path.name in classes]
            if shared:
                raise ValueError(
                    f"{self.name}: splits {split!r} and {other!r} share {len(shared)} classes, such as {shared[0]!r} "
                    f"({(folder / shared[0]).absolute()}); a class belongs to one split"
                )
        return images_of_files(
            classes,
            preprocessing or self.preprocessing,
            key=f"{self.name}-{split}",
            max_cached_bytes=self.max_cached_bytes,
        )
