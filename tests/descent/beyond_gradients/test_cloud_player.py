"""The film: bytes of positions, one self-contained piece of HTML, no address outside it."""

import base64
import json
import re

import numpy as np
import pytest
import torch

from descent.beyond_gradients.cloud_player import CloudFilm, Scene


def scene(frames=3, note="a < b"):
    clouds = torch.rand(frames, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Scene(clouds, clouds.mean(1), "#D55E00", note)


def film(**scenes):
    return CloudFilm("film", scenes, torch.arange(12.0).reshape(3, 4), (-1.0, 1.0), 5)


def test_positions_survive_their_bytes():
    shown = film(one=scene())
    points = torch.tensor([[-1.0, 1.0], [0.0, 0.5], [1.5, 0.0]])
    encoded = shown.encode(points)
    assert encoded[:2].tolist() == [[0, 254], [127, 190]]
    assert encoded[2].tolist() == [255, 255]


def test_the_page_is_self_contained_and_carries_the_data():
    one = scene()
    page = film(**{"a & b": one})._repr_html_()
    assert "a &amp; b" in page
    assert not re.search(r"https?://|src=", page)
    content = json.loads(re.search(r"const film = (\{.*\});", page).group(1))
    assert content["frames"] == 3
    cloud = np.frombuffer(base64.b64decode(content["scenes"][0]["cloud"]), np.uint8)
    assert cloud.tolist() == film(one=one).encode(one.clouds).ravel().tolist()
    assert max(base64.b64decode(content["field"])) == 15


def test_it_is_the_same_every_time():
    assert film(one=scene())._repr_html_() == film(one=scene())._repr_html_()


def test_a_note_cannot_close_the_script():
    page = film(one=scene(note="</script>"))._repr_html_()
    assert page.count("</script>") == 1


def test_scenes_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"same number of frames, got \[3, 4\]"):
        film(one=scene(3), two=scene(4))
