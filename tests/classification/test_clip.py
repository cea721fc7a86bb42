"""CLIP from a model on the disk: classes by their names, pictures beside them; what is not there is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fewshot.classification.clip import Clip, clip
from fewshot.commands import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of CLIP with a few thousand random weights, as transformers saves it; its words are letters."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("clip")
    letters = [*map(chr, range(97, 123)), ".", ","]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt")).save_pretrained(place)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**size, "vocab_size": len(words), "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8},
                                     projection_dim=12)  # fmt: skip
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(place)
    return place


@pytest.mark.slow
def test_a_class_is_the_mean_of_its_prompts(folder):
    found = clip(str(folder))
    both = found.class_embeddings(["cat", "big_dog"], ["a photo of a {}.", "one {}"])
    assert both.class_names == ("cat", "big_dog")
    torch.testing.assert_close(both.features.norm(dim=1), torch.ones(2))
    apart = [found.class_embeddings(["big dog"], [prompt]).features for prompt in ("a photo of a {}.", "one {}")]
    torch.testing.assert_close(both.features[1:], torch.nn.functional.normalize(sum(apart), dim=1))
    assert found.backbone(torch.rand(2, 3, 32, 32)).shape == (2, found.backbone.num_features) == (2, 12)


@pytest.mark.slow
def test_pictures_are_classified_by_the_names_of_classes(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    options = ["--clip", str(folder), "--query", "photos", "--output"]
    main(["classify", *options, "by_name", "--class_names", '["cat", "dog"]', "--prompts", '["a {}"]'])
    record = json.loads(Path("by_name/run.json").read_text())
    assert record["classes"] == ["cat", "dog"] and record["n_class_embeddings"] == 2
    assert record["settings"]["class embeddings"] == "2, each as much as one labelled one, by a {}"
    for name, picture in (("cat", 0), ("dog", 1)):
        Path("labelled", name).mkdir(parents=True)
        Path(f"photos/{picture}.png").rename(f"labelled/{name}/{picture}.png")
    main(["classify", *options, "beside", "--support", "labelled"])  # named by the folders
    record = json.loads(Path("beside/run.json").read_text())
    assert record["n_class_embeddings"] == 2 and record["n_support"] == 2 and record["n_query"] == 3
    assert "by a photo of a {}." in record["settings"]["class embeddings"]
    capsys.readouterr()


@pytest.mark.slow
def test_what_is_no_model_of_clip_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded"):
        clip(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        clip(str(tmp_path))


def altered(folder, place, **changes):
    """A copy of the model whose configuration says something else."""
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    content = json.loads((folder / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**content, **changes}))
    return str(place)


@pytest.mark.slow
def test_a_model_chooses_no_program_and_no_other_model(folder, tmp_path):
    for name in ("attention", "packed", "adapter"):
        (tmp_path / name).mkdir()
    chosen = clip(altered(folder, tmp_path / "attention", _attn_implementation="stranger/kernel"))
    assert chosen.backbone.model.config._attn_implementation == "sdpa"
    packed = altered(folder, tmp_path / "packed", quantization_config={"quant_method": "gptq", "bits": 4})
    adapted = altered(folder, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "stranger/model"}')
    for model in (packed, adapted):
        with pytest.raises(ValueError, match="asks for another program or model"):
            clip(model)


@pytest.mark.slow
def test_weights_that_are_absent_are_not_made_up(folder, tmp_path):
    model = altered(folder, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "text_projection" not in name}
    save_file({**kept, "aside": torch.zeros(5000)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the weights, text_projection\.weight"):
        clip(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "key", "value", "message"),
    [
        ("text_config", "vocab_size", 400_000_000, "describes 6,400"),
        ("vision_config", "intermediate_size", 10**9, "describes 32,000"),
        ("vision_config", "num_hidden_layers", 10**9, "num_hidden_layers=1000000000"),
        ("vision_config", "patch_size", 0, "patch_size=0"),
        ("text_config", "hidden_size", 4096, "are possible here"),
    ],
)
def test_a_configuration_takes_no_memory_that_its_weights_do_not_fill(folder, tmp_path, side, key, value, message):
    content = json.loads((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=message):
        clip(altered(folder, tmp_path, **{side: {**content[side], key: value}}))


@pytest.mark.parametrize(
    ("class_names", "prompts", "message"),
    [([], ["{}"], "give each class once"), (["a", "a"], ["{}"], "give each class once"), (["a"], ["a"], "has no {}"),
     (["a"], [], "has no {}")],
)  # fmt: skip
def test_names_and_prompts_that_say_nothing_are_refused(class_names, prompts, message):
    with pytest.raises(ValueError, match=message):
        Clip(None, None, None).class_embeddings(class_names, prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": '["a", "b"]', "backbone": "conv4"}, "names say something to CLIP alone"),
        ({"prompts": '["a {}"]', "backbone": "conv4", "support": "x"}, "prompts: they say something to CLIP alone"),
        ({"clip": "x", "backbone": "conv4"}, "clip and backbone given"),
        ({"clip": "x", "class_names": '["a", "b"]', "keep_classifier": "true"}, "cannot be kept"),
        ({"clip": "x", "class_names": '["a", "b"]', "prompts": '["a"]'}, "has no {}"),
        ({"clip": "x"}, "--clip <model> with --class_names"),
    ],
)
def test_options_that_do_not_go_together_are_named(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        given = [part for name, value in options.items() for part in (f"--{name}", value)]
        main(["classify", "--query", str(tmp_path), "--output", str(tmp_path / "out"), *given])
    assert message in capsys.readouterr().err
