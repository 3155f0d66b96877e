"""Image files of every kind: what can be read comes out upright, RGB and on white; what cannot says why."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genrec.encoders.media import MediaFile
from genrec.encoders.pictures import read_picture
from genrec.errors import UnreadableInputError

LEFT, RIGHT = (204, 51, 51), (51, 51, 204)  # both are in the palette of 256 colours that Pillow takes


def two_halves(mode: str = "RGB") -> Image.Image:
    """40 × 20, the left half red, the right half blue."""
    image = Image.new("RGB", (40, 20), LEFT)
    image.paste(RIGHT, (20, 0, 40, 20))
    return image.convert(mode)


def read(path: Path, max_megapixels: float = 1.0) -> np.ndarray:
    picture = read_picture(MediaFile(path.parent.resolve(), path.name), max_megapixels=max_megapixels)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def reason(path: Path, max_megapixels: float = 1.0) -> str:
    with pytest.raises(UnreadableInputError) as caught:
        read(path, max_megapixels)
    return caught.value.reason


def test_a_dark_picture_of_deep_greys_is_dark_in_every_format(tmp_path: Path) -> None:
    grey = np.full((16, 24), 600, np.uint16)
    grey[:8] = 500
    Image.fromarray(grey).save(tmp_path / "deep.png")
    (tmp_path / "deep.pgm").write_bytes(b"P5\n24 16\n65535\n" + grey.astype(">u2").tobytes())
    assert read(tmp_path / "deep.png").max() == read(tmp_path / "deep.pgm").max() == 2


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("rgb.png", "RGB"),
        ("palette.png", "P"),
        ("alpha.png", "RGBA"),
        ("rgb.jpg", "RGB"),
        ("cmyk.jpg", "CMYK"),
        ("cmyk.tiff", "CMYK"),
        ("ycc.tiff", "YCbCr"),
        ("rgb.webp", "RGB"),
        ("rgb.bmp", "RGB"),
        ("palette.gif", "P"),
        ("rgb.jp2", "RGB"),
        ("rgb.avif", "RGB"),
    ],
)
def test_every_format_and_mode_gives_the_same_two_colours(tmp_path: Path, name: str, mode: str) -> None:
    two_halves(mode).save(tmp_path / name)
    pixels = read(tmp_path / name)
    assert pixels.shape == (20, 40, 3)
    # 30: lossy formats, palettes and CMYK do not keep colours exactly.
    assert np.abs(pixels[10, 5] - LEFT).max() < 30
    assert np.abs(pixels[10, 35] - RIGHT).max() < 30


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: the left half comes to the top
    two_halves().save(tmp_path / "turned.png", exif=exif)
    pixels = read(tmp_path / "turned.png")
    assert pixels.shape == (40, 20, 3)
    assert pixels[5, 10].tolist() == list(LEFT)
    assert pixels[35, 10].tolist() == list(RIGHT)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_whole_picture_with_damaged_exif_data_is_read_as_it_stands(tmp_path: Path, ending: str) -> None:
    two_halves().save(tmp_path / f"odd.{ending}", dpi=(72, 72), exif=b"Exif\0\0garbage!")
    assert read(tmp_path / f"odd.{ending}").shape == (20, 40, 3)


def test_transparency_lies_on_white_whatever_colour_it_hides(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.paste((100, 0, 0, 128), (2, 0, 4, 2))
    image.save(tmp_path / "alpha.png")
    pixels = read(tmp_path / "alpha.png")
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert np.abs(pixels[0, 3] - [177, 127, 127]).max() <= 1
    keyed = two_halves("P")
    for name in ("keyed.gif", "keyed.png"):
        keyed.save(tmp_path / name, transparency=keyed.getpixel((0, 0)), optimize=False)
        assert read(tmp_path / name)[10, 5].tolist() == [255, 255, 255]
        assert read(tmp_path / name)[10, 35].tolist() == list(RIGHT)


def test_deep_greys_keep_their_shades(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert (read(tmp_path / "deep.png")[..., 0] == np.arange(256).reshape(16, 16)).all()
    Image.fromarray(ramp.astype(np.float32) / 7).save(tmp_path / "float.tiff")
    assert (read(tmp_path / "float.tiff")[..., 0] == np.arange(256).reshape(16, 16)).all()
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    assert reason(tmp_path / "nan.tiff") == "holds pixels that are not finite"


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (LEFT, RIGHT)]
    for name in ("moving.gif", "moving.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert np.abs(read(tmp_path / name)[4, 4] - LEFT).max() < 30


def test_a_picture_of_too_many_pixels_is_refused_before_one_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    def png(width: int, height: int) -> bytes:
        """A header that promises pixels, and none of them: decoding would fail."""
        header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")

    (tmp_path / "bomb.png").write_bytes(png(2000, 1000))
    assert reason(tmp_path / "bomb.png") == "has 2,000 × 1,000 pixels, more than 1 megapixels"
    (tmp_path / "monster.png").write_bytes(png(100_000, 100_000))
    assert reason(tmp_path / "monster.png", 100.0) == "is larger than 100 megapixels"
    assert "cannot be decoded" in reason(tmp_path / "bomb.png", 2.0)
    Image.new("L", (1000, 4)).save(tmp_path / "strip.png")
    assert reason(tmp_path / "strip.png") == "has 1,000 × 4 pixels: one side is over 200 times the other"


def broken_files(folder: Path) -> dict[str, str]:
    """Fifty files that are no whole picture, and the start of the reason for each."""
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    png = io.BytesIO()
    Image.fromarray(noise).save(png, "PNG")
    made: dict[str, tuple[bytes, str]] = {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"No picture at all, but a text.", "is no image of a known kind"),
        "page.png": (b"<html>404 Not Found</html>", "is no image of a known kind"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image of a known kind"),
    }
    for number in range(22):
        cut = 700 + number * (len(whole.getvalue()) - 800) // 22
        made[f"cut{number}.jpg"] = (whole.getvalue()[:cut], "cannot be decoded: ")
        cut = 100 + number * (len(png.getvalue()) - 200) // 22
        made[f"cut{number}.png"] = (png.getvalue()[:cut], "cannot be decoded: ")
    folder.mkdir(exist_ok=True)
    for name, (content, _) in made.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    reasons = {name: expected for name, (_, expected) in made.items()}
    reasons |= {"folder.jpg": "is not a file", "gone.jpg": "does not exist"}
    assert len(reasons) == 50
    return reasons


def test_our_limit_counts_where_pillows_own_is_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    two_halves().save(tmp_path / "large.png")
    assert read(tmp_path / "large.png").shape == (20, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert reason(tmp_path / "large.png", 0.0005) == "has 40 × 20 pixels, more than 0.0005 megapixels"


def test_fifty_broken_files_each_say_what_is_wrong(tmp_path: Path) -> None:
    for name, expected in broken_files(tmp_path).items():
        assert reason(tmp_path / name).startswith(expected), name


def test_a_path_never_leaves_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    two_halves().save(tmp_path / "outside.png")
    (inside / "link.png").symlink_to(tmp_path / "outside.png")
    for name in ("../outside.png", str(tmp_path / "outside.png"), "link.png"):
        with pytest.raises(UnreadableInputError, match="leads outside"):
            MediaFile(inside.resolve(), name).locate()
    (inside / "loop.png").symlink_to(inside / "loop.png")
    with pytest.raises(UnreadableInputError):
        MediaFile(inside.resolve(), "loop.png").locate()
    with pytest.raises(UnreadableInputError):
        MediaFile(inside.resolve(), "nul\0byte.png").locate()
    os.mkfifo(inside / "pipe.png")
    with pytest.raises(UnreadableInputError, match="is not a file"):
        MediaFile(inside.resolve(), "pipe.png").content()
