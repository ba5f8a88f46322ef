"""From a recipe to pictures and to a folder to share: the whole way, in one place."""

import numpy as np
import pytest
from PIL import Image

from lidit_jax import Pipeline
from lidit_jax.cli import main
from lidit_jax.errors import LiditError
from lidit_jax.io.progress import Progress
from lidit_jax.sampling import guided_sampler

PROMPTS = ["a red circle", "two blue stars"]


def test_train_then_sample_then_export_then_sample_again(trained, tmp_path):
    # Trained for 8 steps: `lidit train --config=… --workdir=run`.
    run = trained
    kept = {path.name for path in run.iterdir()}
    assert kept == {
        "checkpoints",
        "config.json",
        "images",
        "loss.png",
        "metrics.jsonl",
        "parameters.txt",
        "report.html",
        "tensorboard",
    }

    # Draw with the averaged weights of the newest checkpoint.
    pipeline = Pipeline.from_checkpoint(run)
    images = pipeline(PROMPTS, seed=3)
    assert images.shape == (2, 32, 32, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(pipeline(PROMPTS, seed=3), images)

    # Image i comes from seed + i, so it can be drawn again on its own, up to rounding.
    alone = pipeline(PROMPTS[1:], seed=4)
    np.testing.assert_allclose(alone[0].astype(int), images[1].astype(int), atol=1)

    # Prompt, seed, weights and settings all matter.
    for other in (
        pipeline(["a cross", "a cross"], seed=3),
        pipeline(PROMPTS, seed=30),
        pipeline(PROMPTS, seed=3, guidance=1.0),
        pipeline(PROMPTS, seed=3, steps=2),
        Pipeline.from_checkpoint(run, raw=True)(PROMPTS, seed=3),
    ):
        assert not np.array_equal(other, images)

    # Export to a small folder: it draws the same images, up to its half precision.
    folder = tmp_path / "my-model"
    assert main(["export", f"--checkpoint={run}", f"--out={folder}"]) == 0
    files = ["README.md", "config.json", "images", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert "lidit sample --checkpoint=my-model" in (folder / "README.md").read_text()
    shared = Pipeline.from_checkpoint(folder)(PROMPTS, seed=3)
    np.testing.assert_allclose(shared.astype(int), images.astype(int), atol=2)


def test_many_prompts_are_drawn_in_batches_of_one_size(pipeline):
    prompts = [f"{i} stars" for i in range(18)]
    images = pipeline(prompts, steps=1)
    assert images.shape == (18, 32, 32, 3)
    np.testing.assert_allclose(
        images[16:].astype(int), pipeline(prompts[16:], steps=1, seed=16).astype(int), atol=1
    )


# --- one program for many inputs ---------------------------------------------------------------


def compiled_programs(pipeline):
    return pipeline._sampler._evaluate._cache_size()


def test_new_seeds_scales_and_prompts_compile_nothing(pipeline):
    pipeline(PROMPTS, guidance=2.0)
    compiled = compiled_programs(pipeline)
    pipeline(["three green stars", "a cross"], guidance=[3.0, 1.5], seed=[5, 9])
    pipeline(PROMPTS, guidance=4.0, guidance_low=0.2, guidance_high=0.9, guidance_rescale=0.7)
    assert compiled_programs(pipeline) == compiled
    pipeline(PROMPTS, guidance=1.0)  # without the unconditional half: half the work
    assert compiled_programs(pipeline) == compiled + 1


def test_batches_of_near_sizes_share_a_program(pipeline):
    """Three images are drawn as four, of which one is thrown away."""
    four = pipeline([*PROMPTS, "a cross", "a star"], steps=1)
    compiled = compiled_programs(pipeline)
    three = pipeline([*PROMPTS, "a cross"], steps=1)
    assert compiled_programs(pipeline) == compiled
    # The same program on the same inputs, row by row.
    np.testing.assert_array_equal(three, four[:3])


class Told(Progress):
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def __call__(self, done, total):
        self.told.append((done, total))

    def note(self, text):
        self.told.append(text)


def test_progress_tells_what_is_compiled_and_the_steps_of_all_batches(folder, monkeypatch):
    monkeypatch.setattr(guided_sampler, "_REPORT_SECONDS", 0.0)  # after every step
    fresh, first, second = Pipeline.from_checkpoint(folder), Told(), Told()
    fresh(["a"] * 18, steps=2, progress=first)
    compiling = "compiling for batches of 16 at 32x32 px"
    assert first.told == [compiling, (1, 4), (2, 4), (3, 4), (4, 4)]
    fresh(["a"] * 16, steps=2, progress=second)
    assert second.told == [(1, 2), (2, 2)], "it is compiled already"


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "heun"},
        {"sampler": "dpm++2m_sde", "guidance_method": "apg"},
        {"cache_interval": 2},
    ],
    ids=["heun", "dpm++2m_sde and apg", "cache"],
)
def test_images_are_bit_equal_with_and_without_progress(settings, pipeline, monkeypatch):
    monkeypatch.setattr(guided_sampler, "_REPORT_SECONDS", 0.0)
    told = Told()
    shown = pipeline(PROMPTS, seed=3, **settings, progress=told)
    compiled = compiled_programs(pipeline)
    np.testing.assert_array_equal(pipeline(PROMPTS, seed=3, **settings), shown)
    assert compiled_programs(pipeline) == compiled, "how many steps are run is data"
    assert len(told.told) == 1 + (5 if settings.get("sampler") == "heun" else 3)


def test_without_step_caching_nothing_has_changed(pipeline):
    images = pipeline(PROMPTS, seed=3)
    compiled = compiled_programs(pipeline)
    np.testing.assert_array_equal(pipeline(PROMPTS, seed=3, cache_interval=1), images)
    assert compiled_programs(pipeline) == compiled


def test_step_caching_is_one_program_for_many_inputs(pipeline):
    whole = pipeline(PROMPTS, seed=3, steps=4)
    images = pipeline(PROMPTS, seed=3, steps=4, cache_interval=2)
    compiled = compiled_programs(pipeline)
    distance = np.abs(images.astype(int) - whole)
    assert 0 < distance.mean() < 40
    again = pipeline(
        ["a cross", PROMPTS[1]], seed=[9, 4], guidance=[1.5, 2.0], steps=4, cache_interval=2
    )
    assert compiled_programs(pipeline) == compiled
    np.testing.assert_allclose(again[1].astype(int), images[1].astype(int), atol=1)


def test_each_image_may_have_its_own_seed_scale_and_negative_prompt(pipeline):
    prompts = ["a red circle"] * 3
    together = pipeline(prompts, seed=[7, 7, 8], guidance=[2.0, 5.0, 2.0])
    alone = pipeline(prompts[:1], seed=7, guidance=5.0)
    np.testing.assert_allclose(together[1].astype(int), alone[0].astype(int), atol=1)
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(together[0], together[2])
    negative = pipeline(prompts, seed=[7, 7, 8], guidance=2.0, negative_prompt=["", "a star", ""])
    np.testing.assert_allclose(negative[[0, 2]].astype(int), together[[0, 2]].astype(int), atol=1)
    assert np.abs(negative[1].astype(int) - together[0].astype(int)).max() > 2


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_types")  # which take no scalar of NumPy for a number
def test_numbers_and_prompts_may_be_numpys(pipeline):
    images = pipeline(PROMPTS, seed=3, size=32, guidance=1.5)
    scales = {"guidance": np.float32(1.5), "steps": np.int64(3)}
    others = pipeline(np.array(PROMPTS), seed=np.int64(3), size=np.int32(32), **scales)
    np.testing.assert_array_equal(others, images)
    one = pipeline(PROMPTS[0], seed=3, size=(np.int64(32), 32), guidance=1.5)
    assert one.shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "unipc", "spacing": "karras"},
        {"sampler": "heun"},
        {"sampler": "dpm++2m_sde"},
        {"shift": 3.0},
        {"guidance_method": "cfg_zero"},
        {"guidance_method": "apg", "apg_norm": 2.0},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_setting_reaches_the_sampler(settings, pipeline):
    plain = pipeline(["a red circle"], seed=3)
    images = pipeline(["a red circle"], seed=3, **settings)
    assert images.shape == (1, 32, 32, 3)
    assert not np.array_equal(images, plain)
    np.testing.assert_array_equal(pipeline(["a red circle"], seed=3, **settings), images)


# --- other jobs --------------------------------------------------------------------------------


def test_image_to_image_keeps_more_the_less_it_redraws(pipeline):
    image = np.full((32, 32, 3), 200, np.uint8)
    image[8:24, 8:24] = (220, 30, 30)
    distances = [
        np.abs(pipeline(["a red square"], image=image, strength=s, steps=10).astype(int) - image)
        for s in (0.1, 0.5, 1.0)
    ]
    assert distances[0].mean() < distances[1].mean() < distances[2].mean()


def test_inpainting_changes_only_what_is_masked(pipeline):
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[3:17, 10:20] = True
    images = pipeline(PROMPTS, image=image, mask=mask)
    np.testing.assert_array_equal(images[:, ~mask], image[:, ~mask])
    assert not np.array_equal(images[:, mask], image[:, mask])


def test_a_blend_is_exact_at_both_ends(pipeline):
    first, second = (pipeline([prompt], seed=3)[0] for prompt in PROMPTS)
    blends = pipeline(
        PROMPTS[:1] * 3, seed=[3, 3, 3], blend_with=PROMPTS[1], blend=[0.0, 0.5, 1.0]
    ).astype(int)
    np.testing.assert_allclose(blends[0], first.astype(int), atol=1)
    np.testing.assert_allclose(blends[2], second.astype(int), atol=1)
    assert np.abs(blends[1] - blends[0]).max() > 0


def test_variations_leave_an_image_little_by_little(pipeline):
    amounts = [0.0, 0.2, 0.6, 1.0]
    images = pipeline(
        ["a red circle"] * 4, seed=[3] * 4, variation=amounts, variation_seed=4
    ).astype(int)
    distance = np.abs(images - images[0]).mean(axis=(1, 2, 3))
    assert np.all(np.diff(distance) > 0)
    end = pipeline(["a red circle"], seed=4).astype(int)
    np.testing.assert_allclose(images[3], end[0], atol=1)


def test_autoguidance_moves_away_from_another_model(pipeline, exported):
    earlier = Pipeline.from_checkpoint(exported(1))
    plain = pipeline(PROMPTS, guidance=1.0)
    guided = pipeline(PROMPTS, guidance=2.0, guide=earlier)
    assert not np.array_equal(guided, plain)
    # A model that is not weaker at all gives no direction.
    np.testing.assert_allclose(
        pipeline(PROMPTS, guidance=2.0, guide=pipeline).astype(int), plain.astype(int), atol=1
    )


# --- the same image again ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--guidance=3", "--negative-prompt=a star", "--sampler=unipc", "--steps=4"],
        ["--guidance-method=apg", "--size=16x40", "--variation=0.4", "--cache-interval=2"],
        [
            "--blend-with=two blue stars",
            "--blend=0.3",
            "--sampler=euler_ancestral",
            "--spacing=karras",
        ],
    ],
    ids=["guidance", "apg", "blend"],
)
def test_an_image_is_made_again_from_its_own_record(options, folder, tmp_path):
    out, again = tmp_path / "x.png", tmp_path / "again.png"
    prompt = ["--prompt=a red circle", "--seed=42"]
    assert main(["sample", f"--checkpoint={folder}", *prompt, *options, f"--out={out}"]) == 0
    assert main(["sample", f"--again={out}", f"--out={again}"]) == 0
    with Image.open(out) as first, Image.open(again) as second:
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
        assert first.text == second.text
        assert first.text["cache_interval"] == ("2" if "--cache-interval=2" in options else "1")


def test_an_image_of_a_batch_that_began_from_a_picture_is_made_again(folder, tmp_path, capsys):
    picture, out = tmp_path / "start.png", tmp_path / "images"
    Image.new("RGB", (32, 32), (200, 30, 30)).save(picture)
    prompts = ["--prompt=a red circle", "--prompt=two blue stars"]
    start = [f"--image={picture}", "--strength=0.7"]
    assert main(["sample", f"--checkpoint={folder}", *prompts, *start, f"--out={out}"]) == 0
    again = [f"--again={out / '0001.png'}", f"--out={tmp_path / 'again.png'}"]
    assert main(["sample", *again]) == 2
    assert "was made from an initial image: give it with --image=FILE" in capsys.readouterr().err
    assert main(["sample", *again, f"--image={picture}"]) == 0
    with Image.open(out / "0001.png") as first, Image.open(tmp_path / "again.png") as second:
        np.testing.assert_allclose(
            np.asarray(first).astype(int), np.asarray(second).astype(int), atol=2
        )


def test_another_checkpoint_does_not_pretend_to_draw_the_same(folder, exported, tmp_path, capsys):
    out = tmp_path / "x.png"
    assert main(["sample", f"--checkpoint={folder}", "--prompt=a", f"--out={out}"]) == 0
    other = f"--checkpoint={exported(1)}"
    assert main(["sample", f"--again={out}", other, f"--out={tmp_path}/y.png"]) == 2
    assert "is not the model that drew" in capsys.readouterr().err


def test_nor_does_another_weaker_model(folder, exported, tmp_path, capsys):
    out, guide = tmp_path / "x.png", exported(1)
    guided = [f"--guide-checkpoint={guide}", "--prompt=a", f"--out={out}"]
    assert main(["sample", f"--checkpoint={folder}", *guided]) == 0
    save = [f"--again={out}", f"--out={tmp_path}/y.png"]
    assert main(["sample", *save]) == 0
    assert main(["sample", *save, f"--guide-checkpoint={folder}"]) == 2
    assert "is not the model that drew" in capsys.readouterr().err


# --- other sizes and encoders -------------------------------------------------------------------


def test_another_size_than_in_training(pipeline):
    assert pipeline(["a"], size=(16, 40), steps=1).shape == (1, 16, 40, 3)


def test_other_encoders_than_in_training_are_refused(trained, tiny_encoders, tmp_path, monkeypatch):
    """The same folder name with other weights in it."""
    from lidit_jax.encoders import text_encoder
    from tests.tiny_encoders import save_encoder

    other = save_encoder(tmp_path / "other", "llama", seed=1)
    locate = text_encoder.locate_encoder
    swapped = {tiny_encoders[0]: str(other)}
    monkeypatch.setattr(
        text_encoder, "locate_encoder", lambda name: locate(swapped.get(name, name))
    )
    with pytest.raises(LiditError, match="is not the one of this checkpoint: its fingerprint is"):
        Pipeline.from_checkpoint(trained)
