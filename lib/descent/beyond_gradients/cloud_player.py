"""A film of particle clouds as one piece of HTML that works offline: positions in bytes, drawn on a canvas."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

__all__ = ["CloudFilm", "Scene"]

OUTSIDE = 255  # the byte of a coordinate outside the window


@dataclass(frozen=True)
class Scene:
    """One run to be shown.

    Attributes:
        clouds: particles of each frame, shape ``(F, N, 2)``.
        consensus: consensus point of each frame, shape ``(F, 2)``.
        colour: of the consensus point, such as ``"#D55E00"``.
        note: a sentence shown below the picture.
    """

    clouds: Tensor
    consensus: Tensor
    colour: str
    note: str


class CloudFilm:
    """Scenes with a play button and a slider, displayed by a notebook or a static page.

    Args:
        name: identifier of the element, unique on the page.
        scenes: the runs by their titles; all with the same number of frames.
        field: the landscape in rows from low to high second coordinate, shape ``(H, W)``; shown in bands.
        window: lowest and highest coordinate of the square window.
        steps_per_frame: steps between frames, for the label of the slider.

    Raises:
        ValueError: for scenes with different numbers of frames, or none.
    """

    def __init__(
        self,
        name: str,
        scenes: Mapping[str, Scene],
        field: Tensor,
        window: tuple[float, float],
        steps_per_frame: int,
    ) -> None:
        frames = {len(s.clouds) for s in scenes.values()} | {
            len(s.consensus) for s in scenes.values()
        }
        if len(frames) != 1:
            raise ValueError(f"all scenes need the same number of frames, got {sorted(frames)}")
        self.name, self.window, self.frames = name, window, frames.pop()
        self.steps_per_frame = steps_per_frame
        bands = field.cpu().numpy()
        spread = np.ptp(bands) or 1.0
        self.field = np.round(15 * (bands - bands.min()) / spread).astype(np.uint8)
        self.scenes = dict(scenes)

    def encode(self, points: Tensor) -> np.ndarray:
        """Positions as bytes: 0 to 254 across the window, 255 for both coordinates outside it."""
        low, high = self.window
        scaled = np.round(254 * (points.cpu().numpy() - low) / (high - low))
        inside = ((scaled >= 0) & (scaled <= 254)).all(-1, keepdims=True)
        return np.where(inside, scaled, OUTSIDE).astype(np.uint8)

    def _repr_html_(self) -> str:
        def text(values: np.ndarray) -> str:
            return base64.b64encode(values.tobytes()).decode("ascii")

        content = {
            "frames": self.frames,
            "every": self.steps_per_frame,
            "size": self.field.shape,
            "field": text(self.field),
            "low": self.window[0],
            "high": self.window[1],
            "scenes": [
                {
                    "cloud": text(self.encode(scene.clouds)),
                    "path": text(self.encode(scene.consensus)),
                    "colour": scene.colour,
                    "note": scene.note,
                }
                for scene in self.scenes.values()
            ],
        }
        options = "".join(
            f'<option value="{index}">{html.escape(title)}</option>'
            for index, title in enumerate(self.scenes)
        )
        return (
            PAGE.replace("@name", html.escape(self.name))
            .replace("@options", options)
            .replace("@last", str(self.frames - 1))
            .replace("@content", json.dumps(content).replace("</", "<\\/"))
        )

    def __repr__(self) -> str:
        return f"film of {', '.join(self.scenes)}, {self.frames} frames"


PAGE = """<div id="@name" class="cloud-film" style="max-width:30rem;margin:1rem auto">
<canvas width="600" height="600" role="img" aria-label="Film of a particle cloud on the contours of the
landscape" style="width:100%;height:auto;border:1px solid #c8c8c8;background:#fff"></canvas>
<div style="display:flex;flex-wrap:wrap;gap:.5rem;align-items:center">
<label>Method <select style="max-width:100%">@options</select></label>
<button type="button">Play</button>
<label style="flex:1 1 10rem;display:flex;gap:.5rem;align-items:center"><span style="min-width:5.5em">step 0</span>
<input type="range" min="0" max="@last" value="0" aria-label="step" style="flex:1;min-width:0"></label>
</div><p style="font-size:.9em;min-height:3em"></p>
<noscript>The film needs JavaScript; the figure above shows six of its frames.</noscript>
<script>(() => {
const film = @content;
const root = document.getElementById("@name"), canvas = root.querySelector("canvas");
const pen = canvas.getContext("2d"), slider = root.querySelector("input");
const choice = root.querySelector("select"), button = root.querySelector("button");
const label = root.querySelector("span"), note = root.querySelector("p");
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
for (const s of film.scenes) { s.cloud = bytes(s.cloud); s.path = bytes(s.path); }
const [rows, columns] = film.size, field = bytes(film.field);
const land = document.createElement("canvas");
land.width = columns; land.height = rows;
const image = land.getContext("2d").createImageData(columns, rows);
for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
  const grey = 190 + 4 * field[(rows - 1 - r) * columns + c], at = 4 * (r * columns + c);
  image.data.set([grey, grey, grey, 255], at);
}
land.getContext("2d").putImageData(image, 0, 0);
const place = (b, at) => [b[at] / 254 * 600, 600 - b[at + 1] / 254 * 600];
const dot = (x, y, radius) => { pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.fill(); };
function draw() {
  const scene = film.scenes[choice.value], k = +slider.value;
  const count = scene.cloud.length / film.frames;
  pen.imageSmoothingEnabled = true;
  pen.drawImage(land, 0, 0, 600, 600);
  const origin = -film.low / (film.high - film.low) * 600;
  pen.fillStyle = "#000"; pen.font = "28px sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle";
  pen.fillText("\\u2605", origin, 600 - origin);
  pen.fillStyle = "rgba(0,60,120,.55)";
  for (let i = k * count; i < (k + 1) * count; i += 2)
    if (scene.cloud[i] < 255) dot(...place(scene.cloud, i), 3);
  pen.strokeStyle = scene.colour; pen.lineWidth = 3; pen.beginPath();
  for (let j = 0; j <= k; j++) if (scene.path[2 * j] < 255) pen.lineTo(...place(scene.path, 2 * j));
  pen.stroke();
  pen.fillStyle = scene.colour;
  if (scene.path[2 * k] < 255) dot(...place(scene.path, 2 * k), 8);
  label.textContent = "step " + k * film.every; note.textContent = scene.note;
}
let timer = null;
function stop() { clearInterval(timer); timer = null; button.textContent = "Play"; }
button.onclick = () => {
  if (timer) return stop();
  if (+slider.value === film.frames - 1) slider.value = 0;
  button.textContent = "Pause";
  timer = setInterval(() => {
    if (+slider.value === film.frames - 1) return stop();
    slider.value = +slider.value + 1; draw();
  }, 120);
};
slider.oninput = () => { stop(); draw(); };
choice.onchange = draw;
draw();
})();</script></div>"""
