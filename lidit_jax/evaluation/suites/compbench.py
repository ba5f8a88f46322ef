"""T2I-CompBench (arXiv 2307.06350): attributes, relations and numbers, a scorer per category."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.json_text import read_json
from lidit_jax.evaluation.suites.prompt_files import checked_prompt, find_file, read_lines
from lidit_jax.evaluation.suites.result_files import check_prompt_set, complete
from lidit_jax.evaluation.suites.suite import Item, Picture, Results, Task

_RESULT = "vqa_result.json"
_FOLDERS = {
    "color": "annotation_blip",
    "shape": "annotation_blip",
    "texture": "annotation_blip",
    "spatial": "labels/annotation_obj_detection_2d",
    "3d_spatial": "labels/annotation_obj_detection_3d",
    "numeracy": "annotation_num",
    "non_spatial": "annotation_clip",
    "complex": "annotation_3_in_1",
}
"""Category -> folder that its official scorer writes, beside the images."""
_BLIP = "(cd BLIPvqa_eval && python BLIP_vqa.py --out_dir={folder})"
_CLIP = "python CLIPScore_eval/CLIP_similarity.py --outpath={folder}"
_SCORERS = {
    "color": (_BLIP,),
    "shape": (_BLIP,),
    "texture": (_BLIP,),
    "spatial": ("(cd UniDet_eval && python 2D_spatial_eval.py --outpath={folder})",),
    "3d_spatial": ("(cd UniDet_eval && python 3D_spatial_eval.py --outpath={folder})",),
    "numeracy": ("(cd UniDet_eval && python numeracy_eval.py --outpath={folder})",),
    "non_spatial": (_CLIP,),
    "complex": (
        _BLIP,
        "(cd UniDet_eval && python 2D_spatial_eval.py --outpath={folder} --complex=True)",
        f"{_CLIP} --complex=True",
        "(cd 3_in_1_eval && python 3_in_1.py --outpath={folder})",
    ),
}
"""Category -> commands of its official scorers, in the folder of their repository."""
_LONGEST = 240
"""Bytes of a prompt that fit into a file name beside its number."""


class CompBench:
    """Suite of eight categories with 300 prompts each, of which the paper reports four."""

    name = "compbench"
    title = "T2I-CompBench"
    folder = "t2i_compbench"
    images_per_prompt = 10
    official_prompts = 2400
    square = False
    tasks = (
        Task("color", "color"),
        Task("shape", "shape"),
        Task("texture", "texture"),
        Task("spatial", "spatial", in_mean=False),
        Task("3d_spatial", in_mean=False),
        Task("numeracy", in_mean=False),
        Task("non_spatial", in_mean=False),
        Task("complex", in_mean=False),
    )
    mean = "mean of color, shape, texture"
    mean_column = ""
    scale = 100.0

    def items(self, source: Path) -> list[Item]:
        """Read `CATEGORY_val.txt` of each category, of a folder or of the official repository."""
        items = []
        for task in self.tasks:
            name = f"{task.name}_val.txt"
            file = find_file(source, name, f"examples/dataset/{name}")
            for place, line in enumerate(read_lines(file)):
                where = f"{file}: line {place + 1}"
                # Some of the official files have more columns after a tab.
                prompt = checked_prompt(where, line.split("\t")[0].strip())
                if "_" in prompt or "/" in prompt or len(prompt.encode()) > _LONGEST:
                    raise LiditError(
                        f"{where}: the scorer reads prompts from file names, and {prompt!r} "
                        f"contains '_' or '/', or has more than {_LONGEST} bytes"
                    )
                items.append(Item(f"{task.name}/{place:05d}", task.name, prompt, place))
        return items

    def pictures(self, item: Item, count: int) -> list[Picture]:
        """Return `CATEGORY/samples/PROMPT_NUMBER.png`, the images of a category numbered."""
        return [
            Picture(
                f"{item.task}/samples/{item.prompt}_{item.place * count + sample:06d}.png",
                item,
                (sample,),
            )
            for sample in range(count)
        ]

    def text_files(self, items: Sequence[Item], count: int) -> dict[str, str]:
        """Return none: the scorers read prompts from the names of the images."""
        return {}

    def read_results(self, path: Path, items: Sequence[Item], count: int) -> Results:
        """Read `vqa_result.json` of each category that was scored, below `CATEGORY/`."""
        results: dict[str, Sequence[float]] = {}
        for task in self.tasks:
            own = [item for item in items if item.task == task.name]
            folder = path / task.name
            file = folder / _FOLDERS[task.name] / _RESULT
            if own and file.is_file():
                self._check_samples(folder / "samples", own, count)
                results |= complete(self, _answers(file, own, count), own, count, str(file))
        if not results:
            color = f"color/{_FOLDERS['color']}/{_RESULT}"
            raise LiditError(
                f"{path} holds no result of any category, such as {color}: name the folder of the "
                "images after their official scorers have run there"
            )
        return results

    def _check_samples(self, samples: Path, items: Sequence[Item], count: int) -> None:
        """Compare the images beside the results with the prompts, as results have no prompts."""
        if not samples.is_dir():
            return
        wanted = {
            picture.file.rpartition("/")[2]
            for item in items
            for picture in self.pictures(item, count)
        }
        there = sorted(path.name for path in samples.iterdir())
        check_prompt_set([name for name in there if name not in wanted], len(there), str(samples))

    def scorer_commands(self, out: str, side: int, count: int) -> list[str]:
        """Return the commands of github.com/Karine-Huang/T2I-CompBench."""
        return [
            command.format(folder=shlex.quote(f"{out}/{task.name}"))
            for task in self.tasks
            for command in _SCORERS[task.name]
        ]


def _answers(file: Path, items: Sequence[Item], count: int) -> dict[tuple[str, int], float]:
    """Return the answers by key and image; numbers beyond the prompts keep their number as key."""
    rows: Any = read_json(file)
    if not isinstance(rows, list):
        raise LiditError(f"{file} is not a list of answers: name the folder of the official scorer")
    by_place = {item.place: item.key for item in items}
    found: dict[tuple[str, int], float] = {}
    for row in rows:
        try:
            number, answer = int(row["question_id"]), float(row["answer"])
        except (TypeError, KeyError, ValueError) as error:
            raise LiditError(
                f"{file}: {str(row)[:80]} is not a question_id with a number as answer: score again"
            ) from error
        place, sample = divmod(number, count)
        key = (by_place.get(place, f"image {number:06d}"), sample)
        if key in found:
            raise LiditError(f"{file} answers question {number} twice: score the images again")
        found[key] = answer
    return found
