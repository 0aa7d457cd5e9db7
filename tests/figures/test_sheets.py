import sys

import pytest
import torch
from PIL import Image

from tests.networks import rand
from underfire import figures
from underfire.errors import InputError

IMAGE = rand(3, 16, 16)


def test_a_sheet_has_every_image_and_every_title():
    drawn = figures.sheet([[IMAGE, IMAGE[:1]], [IMAGE, None]], ["first", "second"], ["clean", "attacked"])
    assert [len(axis.images) for axis in drawn.axes] == [1, 1, 1, 0]
    assert [axis.get_title() for axis in drawn.axes] == ["clean", "attacked", "", ""]
    assert [axis.get_ylabel() for axis in drawn.axes] == ["first", "", "second", ""]


def test_the_pixels_are_the_images():
    drawn = figures.sheet([[IMAGE]])
    assert torch.equal(torch.tensor(drawn.axes[0].images[0].get_array()), IMAGE.permute(1, 2, 0))


def test_no_title_leaves_the_sheet_or_meets_another():
    long = "a name that is much longer than its image is wide"
    drawn = figures.sheet([[IMAGE] * 4] * 3, [long, "b", long], [long, "x", long, long])
    drawn.draw_without_rendering()
    page = drawn.bbox
    titles = [axis.title for axis in drawn.axes if axis.get_title()]
    labels = [axis.yaxis.label for axis in drawn.axes if axis.get_ylabel()]
    for texts in (titles, labels):
        boxes = [text.get_window_extent() for text in texts]
        assert all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_drawing_opens_no_window_and_keeps_no_state():
    if "matplotlib.pyplot" not in sys.modules:
        figures.sheet([[IMAGE]])
        assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_figure_is_saved_by_its_ending(tmp_path, ending):
    path = tmp_path / f"sheet.{ending}"
    figures.save(figures.sheet([[IMAGE]]), path)
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])


def test_a_tensor_is_saved_pixel_by_pixel(tmp_path):
    figures.save(IMAGE, tmp_path / "a.png", at_least=30)
    with Image.open(tmp_path / "a.png") as back:
        assert back.size == (32, 32)
        assert back.getpixel((5, 9)) == tuple((IMAGE[:, 4, 2] * 255).round().int().tolist())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: figures.save(IMAGE, folder / "none" / "a.png"), r"a.png: the folder .*none does not exist"),
        (
            lambda folder: figures.save_small(figures.sheet([[IMAGE]]), folder / "no" / "a.webp"),
            r"a.webp: the folder .*no does not exist",
        ),
        (lambda folder: figures.save(IMAGE, folder / "a.xyz"), r"'.xyz' names no image format"),
        (lambda folder: figures.save(figures.sheet([[IMAGE]]), folder / "a.xyz"), r"'.xyz' names no image format"),
        (lambda _: figures.sheet([]), r"at least 1, got \[\]"),
        (lambda _: figures.sheet([[IMAGE], [IMAGE, IMAGE]]), r"got \[1, 2\]"),
        (lambda _: figures.sheet([[IMAGE]], row_titles=["a", "b"]), "1 rows needs 1 row titles, got 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, call, message):
    with pytest.raises(InputError, match=message):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_legend_says_what_the_colours_of_maps_mean():
    plain, told = (figures.sheet([[torch.zeros(3, 8, 8)] * 3], legend=legend) for legend in (False, True))
    assert len(told.axes) == len(plain.axes) + 2
    assert [text.get_text() for axes in told.axes[-2:] for text in axes.texts] == [
        "no evidence",
        "evidence",
        "against",
        "for",
    ]
    assert told.get_size_inches()[1] > plain.get_size_inches()[1]


def test_the_legend_has_the_colours_of_the_maps():
    from underfire.figures.overlay import colour_bar, heatmap

    image = torch.zeros(1, 1, 256)
    signed = heatmap(torch.linspace(-1, 1, 256)[None, None], image)
    cover = 0.35 + 0.55 * torch.linspace(-1, 1, 256).abs()
    assert torch.allclose((signed / cover)[:, 0, 40:-40], colour_bar(True)[:, 0, 40:-40], atol=0.05)
    for one in (True, False):
        assert colour_bar(one).shape == (3, 1, 256)


@pytest.mark.slow
def test_pictures_for_the_web_stay_small(tmp_path):
    noise = rand(3, 224, 224)
    figure = figures.sheet([[noise] * 3, [noise] * 3], column_titles=["a", "b", "c"])
    figures.save_small(figure, tmp_path / "noise.webp")
    assert (tmp_path / "noise.webp").stat().st_size <= 60_000


def test_every_image_may_have_a_title():
    figure = figures.sheet([[IMAGE, IMAGE], [IMAGE, None]], titles=[["a", "b"], ["c", ""]])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", ""]
    with pytest.raises(InputError, match="one for each image"):
        figures.sheet([[IMAGE, IMAGE]], titles=[["a"]])
    with pytest.raises(InputError, match="one for each image"):
        figures.sheet([[IMAGE]], titles=[["a"]], column_titles=["b"])


def test_a_text_stands_in_the_place_of_an_image():
    figure = figures.sheet([[IMAGE, "no map: " + "word " * 200]])
    _, cell = figure.axes
    (text,) = cell.texts
    assert text.get_text().startswith("no map:") and text.get_text().endswith("...") and not cell.images
