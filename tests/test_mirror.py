"""Where each module is tested: in the file of its name, or in those that this table names."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ELSEWHERE = {
    "attention/names.py": "models/test_rematerialization.py",
    "attention/tuned.py": "planning/test_attention_tuning.py",
    "autoencoders/diffusers_layout.py": "autoencoders/test_kl.py",
    "autoencoders/frozen.py": "autoencoders/test_kl.py autoencoders/test_meshes.py",
    "autoencoders/latent_model.py": "autoencoders/test_meshes.py autoencoders/test_patch.py",
    "autoencoders/posterior.py": "autoencoders/test_kl.py autoencoders/test_patch.py",
    "autoencoders/tables.py": "autoencoders/test_kl.py",
    "autoencoders/tiny.py": "autoencoders/test_kl.py autoencoders/test_meshes.py",
    "benchmarks/attention.py": "benchmarks/test_runner.py",
    "benchmarks/encode.py": "benchmarks/test_runner.py",
    "benchmarks/interleaved.py": "benchmarks/test_runner.py",
    "benchmarks/part.py": "benchmarks/test_part_runner.py benchmarks/test_parts.py",
    "benchmarks/sample.py": "benchmarks/test_runner.py",
    "benchmarks/serve.py": "benchmarks/test_runner.py",
    "benchmarks/step.py": "benchmarks/test_runner.py",
    "benchmarks/synthetic.py": "benchmarks/test_synthetic_data.py",
    "benchmarks/torch_training.py": "pytorch/test_model.py",
    "benchmarks/workload.py": "benchmarks/test_runner.py",
    "checkpoints/orbax_s3.py": "io/test_buckets.py",
    "checkpoints/orbax_weights.py": "checkpoints/test_opener.py",
    "checkpoints/shapes.py": "pytorch/test_import_weights.py training/test_refiner_start.py",
    "cli.py": "commands/test_cli.py commands/test_cli_mistakes.py",
    "commands/bench.py": "commands/test_cli_mistakes.py benchmarks/test_runner.py",
    "commands/convert.py": "pytorch/test_export.py pytorch/test_import_weights.py",
    "commands/data_inspect.py": "commands/test_data.py",
    "commands/device_options.py": "commands/test_eval_suites.py",
    "commands/doctor_findings.py": "commands/test_doctor.py",
    "commands/evaluate.py": "commands/test_cli_mistakes.py evaluation/test_samplers.py",
    "commands/recipe.py": "commands/test_cli_mistakes.py",
    "commands/sample_options.py": "commands/test_sample.py commands/test_cli.py",
    "commands/sample_output.py": "commands/test_cli.py",
    "commands/self_test.py": "hardware/test_known_faults.py",
    "commands/train.py": "training/test_command.py",
    "commands/tune.py": "planning/test_attention_tuning.py",
    "config/checks.py": "config/test_load.py config/test_values.py",
    "config/data_config.py": "config/test_load.py config/test_values.py",
    "config/prompt_text.py": "sampling/test_request.py data/sources/test_caption_listings.py",
    "config/prompt_format.py": "encoders/test_conditions.py encoders/test_tokenizer.py",
    "data/training_data.py": "data/test_streamed_data.py benchmarks/test_synthetic_data.py",
    "data/sources/class_captions.py": "data/sources/test_class_folders.py "
    "data/sources/test_parquet.py",
    "data/sources/columns.py": "data/sources/test_caption_listings.py "
    "data/sources/test_webdataset.py",
    "data/sources/parquet_columns.py": "data/sources/test_parquet.py",
    "data/sources/image_chunks.py": "data/sources/test_folder.py",
    "data/sources/protocol.py": "data/sources/test_folder.py data/sources/test_webdataset.py",
    "data/sources/record_files.py": "data/sources/test_array_record.py",
    "data/sources/tar_members.py": "data/sources/test_webdataset.py",
    "data/scenes/builder.py": "data/test_scenes_builder.py",
    "data/scenes/captions.py": "data/test_scenes_captions.py",
    "data/scenes/held_out.py": "data/test_scenes.py",
    "data/scenes/render.py": "data/test_scenes.py",
    "data/scenes/sampling.py": "data/test_scenes.py",
    "data/scenes/scene.py": "data/test_scenes.py",
    "data/scenes/source.py": "data/test_scenes.py data/scenes/test_records.py",
    "data/scenes/paraphrases.py": "data/test_scenes_paraphrases.py",
    "data/scenes/vocabulary.py": "data/test_scenes.py data/test_scenes_captions.py",
    "diffusion/base.py": "diffusion/test_process.py",
    "diffusion/ddpm.py": "diffusion/test_process.py diffusion/test_schedules.py",
    "diffusion/flow.py": "diffusion/test_process.py diffusion/test_schedules.py",
    "diffusion/noise.py": "diffusion/test_samplers.py",
    "diffusion/parameterization.py": "diffusion/test_process.py",
    "diffusion/solvers.py": "diffusion/test_samplers.py diffusion/test_samplers_diffusers.py",
    "diffusion/spacing.py": "diffusion/test_samplers.py diffusion/test_samplers_diffusers.py",
    "diffusion/weighting.py": "diffusion/test_process.py diffusion/test_schedules.py",
    "encoders/bert.py": "encoders/test_families.py encoders/test_parity.py",
    "encoders/blocks.py": "encoders/test_families.py encoders/test_parity.py",
    "encoders/encoder_families.py": "encoders/test_families.py encoders/test_config_fields.py",
    "encoders/family.py": "encoders/test_families.py encoders/test_config_fields.py",
    "encoders/decoder.py": "encoders/test_families.py encoders/test_parity.py",
    "encoders/tokenizer_probes.py": "encoders/test_tokenizer_check.py",
    "encoders/t5.py": "encoders/test_families.py encoders/test_parity.py",
    "encoders/text_encoder.py": "encoders/test_features.py encoders/test_tokenizer.py",
    "errors.py": "commands/test_cli_mistakes.py",
    "evaluation/images.py": "evaluation/test_scene_report.py commands/test_cli.py",
    "evaluation/sampler_plot.py": "evaluation/test_samplers.py",
    "evaluation/sampler_report.py": "evaluation/test_samplers.py",
    "evaluation/scene_detector.py": "evaluation/test_scene_scorer.py",
    "evaluation/scene_grid.py": "evaluation/test_scene_report.py",
    "evaluation/scene_prompts.py": "evaluation/test_scene_report.py",
    "evaluation/suites/drawing_record.py": "evaluation/suites/test_drawing.py",
    "evaluation/suites/json_text.py": "evaluation/suites/test_compbench.py "
    "evaluation/suites/test_own_prompts.py",
    "evaluation/suites/paper_table.py": "evaluation/suites/test_scores.py",
    "evaluation/suites/prompt_files.py": "evaluation/suites/test_own_prompts.py "
    "evaluation/suites/test_geneval.py",
    "evaluation/suites/result_files.py": "evaluation/suites/test_geneval.py "
    "evaluation/suites/test_compbench.py",
    "evaluation/suites/score_plot.py": "evaluation/suites/test_scoring.py",
    "evaluation/suites/score_report.py": "evaluation/suites/test_scoring.py",
    "evaluation/suites/suite.py": "evaluation/suites/test_drawing.py",
    "hardware/devices.py": "planning/test_plan.py training/monitoring/test_run_log.py",
    "io/bucket_sync.py": "io/test_buckets.py",
    "io/output.py": "commands/test_cli.py io/test_buckets.py",
    "models/convolution.py": "models/test_layers.py autoencoders/test_patch.py",
    "models/dit.py": "models/test_layers.py models/test_lidit.py",
    "planning/ahead_of_time.py": "planning/test_tpu_compile.py",
    "planning/compiled_plan.py": "commands/test_plan.py planning/test_plan.py "
    "planning/test_tpu_compile.py",
    "planning/hlo.py": "planning/test_collectives.py planning/test_hlo_cost.py",
    "planning/memory.py": "planning/test_plan.py planning/test_recipe_plans.py",
    "planning/plan_mesh.py": "planning/test_plan.py",
    "planning/plan_report.py": "commands/test_plan.py",
    "planning/plan_search.py": "planning/test_plan.py",
    "planning/published_runs.py": "planning/test_calibration.py",
    "planning/roofline.py": "planning/test_plan.py planning/test_calibration.py",
    "planning/weak_scaling.py": "planning/test_recipe_plans.py",
    "pytorch/diffusers_pipeline.py": "pytorch/test_export.py",
    "pytorch/layout.py": "pytorch/test_model.py pytorch/test_import_weights.py",
    "pytorch/parity.py": "pytorch/test_export.py",
    "pytorch/sampling.py": "pytorch/test_export.py",
    "sampling/guided_sampler.py": "sampling/test_pipeline.py sampling/test_pipeline_on_meshes.py",
    "sampling/image_batch.py": "sampling/test_guided_model.py sampling/test_pipeline.py",
    "sampling/png_metadata.py": "commands/test_cli.py sampling/test_pipeline.py",
    "training/autoencoder_task.py": "training/test_autoencoder.py training/test_autoencoder_kl.py",
    "training/loop.py": "training/test_command.py training/test_resume.py",
    "training/monitoring/metric_files.py": "training/monitoring/test_run_log.py",
    "training/monitoring/report.py": "training/monitoring/test_run_log.py",
    "training/preemption.py": "training/test_resume.py faults/test_kill_and_resume.py",
    "training/prepared_data.py": "training/test_preparation.py training/test_lidit_task.py",
    "training/tasks.py": "training/test_lidit_task.py training/test_autoencoder.py",
    "weights/built_tokenizers.py": "weights/test_clip_tokenizer.py "
    "weights/test_sentencepiece_tokenizer.py",
    "weights/int8.py": "weights/test_huggingface.py weights/test_streaming.py",
    "weights/mapped_tensors.py": "weights/test_streaming.py weights/test_huggingface.py",
    "weights/placement.py": "weights/test_huggingface.py weights/test_streaming.py",
    "weights/tables.py": "weights/test_huggingface.py encoders/test_families.py",
    "weights/tensor_writer.py": "pytorch/test_export.py pytorch/test_import_weights.py",
}
"""Modules without a test file of their name, each with the files that test it."""


def own_test(module: Path) -> Path:
    """The test file of a module's name; both paths are relative to the package and the tests."""
    return module.parent / f"test_{module.name}"


def modules() -> list[Path]:
    """Every module but packages' `__init__.py`."""
    package = ROOT / "lidit_jax"
    files = (file.relative_to(package) for file in package.rglob("*.py"))
    return sorted(f for f in files if f.name != "__init__.py" and f.parts[0] != "packaged")


def test_every_module_has_a_test_of_its_name_or_says_where_it_is_tested():
    homeless = {
        module.as_posix()
        for module in modules()
        if not (ROOT / "tests" / own_test(module)).exists()
    }
    assert homeless == set(ELSEWHERE)


@pytest.mark.parametrize("module", ELSEWHERE)
def test_the_files_that_the_table_names_exist(module):
    for name in ELSEWHERE[module].split():
        assert (ROOT / "tests" / name).is_file(), name
