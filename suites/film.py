"""Episodes on film: the first slot of a vector environment, rendered offscreen into a video."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

from baselines.config import UsageError
from suites.envs import registered
from suites.envs.mujoco import Flags, Floats, VectorEnv, VectorStep

Frame = npt.NDArray[np.uint8]  # [H, W, 3]
PICTURES_PER_SECOND = 25  # about; the simulators' 20 to 125 per second are thinned to this


class Film:
    """A video file in the making; it appears under its name when it is finished.

    Args:
        path: ends in .mp4 (needs PyAV) or .gif (half the size).
        env_id: a gymnasium id.

    Raises:
        UsageError: if the file, its library or a way to render is missing.
    """

    def __init__(self, path: Path, env_id: str) -> None:
        makers: dict[str, type[Mp4] | type[Gif]] = {".mp4": Mp4, ".gif": Gif}
        if path.suffix.lower() not in makers:
            raise UsageError(f"{path} is no video this suite can write; name it .mp4 or .gif")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} is not there; make it first")
        self.path, self.part = path, path.with_name(f".{path.name}.part")
        self.env = make_rendered(env_id)
        per_second = self.env.metadata.get("render_fps") or PICTURES_PER_SECOND
        self.every = max(1, round(per_second / PICTURES_PER_SECOND))
        rate = Fraction(per_second) / self.every
        self.writer: Writer = makers[path.suffix.lower()](self.part, rate)
        self.steps = 0

    def watching(self, env: VectorEnv) -> Camera:
        """The same environments, of which the first is filmed."""
        return Camera(env, self)

    def reset(self, seed: int) -> None:
        """Begins the episode."""
        self.env.reset(seed=seed)
        self._shoot()

    def step(self, action: Any) -> None:
        """Goes on with the episode."""
        self.env.step(action)
        self.steps += 1
        if self.steps % self.every == 0:
            self._shoot()

    def _shoot(self) -> None:
        picture: Any = self.env.render()
        height, width = (size // 2 * 2 for size in picture.shape[:2])  # as the encoder wants it
        self.writer.write(np.ascontiguousarray(picture[:height, :width], np.uint8))

    def finish(self) -> None:
        """Closes the file and gives it its name."""
        self.writer.close()
        os.replace(self.part, self.path)

    def close(self) -> None:
        """Frees the simulator; an unfinished film is thrown away."""
        self.env.close()
        self.part.unlink(missing_ok=True)


class Camera:
    """A vector environment whose first slot is played a second time, on film.

    The rendered environment is reset and stepped as the slot is and computes the same, so looking
    changes nothing; the slot's own simulator need not know how to render.
    """

    def __init__(self, env: VectorEnv, film: Film) -> None:
        self.env, self.film = env, film
        self.env_id, self.count = env.env_id, env.count
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.horizon, self.reward_parts = env.horizon, env.reward_parts

    def reset(self, index: int, seed: int) -> Floats:
        """See :class:`suites.envs.mujoco.VectorEnv`."""
        if index == 0:
            self.film.reset(seed)
        return self.env.reset(index, seed)

    def step(self, actions: npt.NDArray[Any], active: Flags | None = None) -> VectorStep:
        """See :class:`suites.envs.mujoco.VectorEnv`."""
        if active is None or active[0]:
            self.film.step(actions[0])
        return self.env.step(actions, active)

    def close(self) -> None:
        """Releases the environments."""
        self.film.close()
        self.env.close()


def make_rendered(env_id: str) -> gymnasium.Env[Any, Any]:
    """An environment that renders pictures without a screen.

    Raises:
        UsageError: if this machine cannot; the message says what to try.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # gymnasium's advice to leave -v4
        env: gymnasium.Env[Any, Any] = registered.make(env_id, render_mode="rgb_array")
    try:
        platform = os.environ.get("MUJOCO_GL")
        if platform and hasattr(env.unwrapped, "model"):  # MuJoCo's
            # Asked first: gymnasium's renderer, if it fails half way, complains again when freed,
            # and so does MuJoCo's context unless it finds this attribute.
            base = importlib.import_module(f"mujoco.{platform}").GLContext
            type("Probe", (base,), {"_context": None})(8, 8).free()
        env.reset(seed=0)
        env.render()
    except Exception as error:
        raise UsageError(
            f"{env_id} cannot be rendered with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} "
            f"({type(error).__name__}: {error}); install EGL (Debian: libegl1 and "
            "libgl1-mesa-dri) and set MUJOCO_GL=egl, or OSMesa and MUJOCO_GL=osmesa"
        ) from None
    return env


class Writer(Protocol):
    """Takes pictures one by one."""

    def write(self, frame: Frame) -> None: ...

    def close(self) -> None: ...


class Mp4:
    """H.264 in MP4, which plays everywhere, through PyAV.

    Raises:
        UsageError: if PyAV is not installed.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        try:
            import av
        except ImportError:
            raise UsageError(
                "an .mp4 needs PyAV (pip install -e '.[video]'); a .gif works without"
            ) from None
        self.av: Any = av
        self.container: Any = av.open(str(path), "w", format="mp4")
        self.stream: Any = self.container.add_stream("libx264", rate=rate)
        self.stream.pix_fmt = "yuv420p"

    def write(self, frame: Frame) -> None:
        """Encodes a picture; the first sets the size."""
        if not self.stream.codec_context.is_open:
            self.stream.height, self.stream.width = frame.shape[:2]
        picture = self.av.VideoFrame.from_ndarray(frame, format="rgb24")
        self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        """Encodes what is left and closes the file."""
        self.container.mux(self.stream.encode())
        self.container.close()


class Gif:
    """An animated GIF at half the size, through Pillow, which matplotlib brings."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.milliseconds = path, round(1000 / rate)
        self.pictures: list[Any] = []

    def write(self, frame: Frame) -> None:
        """Keeps a picture, reduced to 256 colours."""
        from PIL import Image

        small = Image.fromarray(frame).reduce(2)
        self.pictures.append(small.quantize(256))

    def close(self) -> None:
        """Writes the file."""
        first, *others = self.pictures
        first.save(
            self.path,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=self.milliseconds,
            loop=0,
        )
