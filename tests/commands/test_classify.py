"""python -m fewshot classify: folders of pictures in, a table and a report out, and every kind of bad input named."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from fewshot import FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.classification.classified import Classified
from fewshot.classification.novelty import novelty, support_novelty, threshold
from fewshot.commands import main
from fewshot.data.cache import FEATURES, PICTURES, cached_files
from fewshot.data.pictures import picture_endings
from fewshot.data.transforms import Preprocessing
from fewshot.files import read_csv
from fewshot.methods import SIB, EquivariantGradient, MLPGradient
from fewshot.training.saved_model import save_trained

COLOURS = {"rot und grün": (200, 40, 40), "蓝色": (40, 40, 200), "jaune ~é": (200, 200, 40)}


def pixels(colour, seed, size=(20, 26)):
    noise = np.random.default_rng(seed).integers(-25, 25, (*size, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trained") / "model"
    module = FewShotModule(SIB(gradient=EquivariantGradient()), BackboneConfig("conv4_32", image_size=16))
    save_trained(module.eval(), Preprocessing(image_size=16, stored_size=16, mean=(0.5,) * 3, std=(0.25,) * 3), folder)
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Support of one, two and three pictures a class, queries in folders named after their classes."""
    monkeypatch.chdir(tmp_path)
    for number, (name, colour) in enumerate(COLOURS.items()):
        Path("support", name).mkdir(parents=True)
        Path("query", name, "more of them").mkdir(parents=True)
        for shot in range(number + 1):
            pixels(colour, 10 * number + shot).save(Path("support", name, f"shot {shot}.png"))
        for place in range(4):
            picture = pixels(colour, 100 + 10 * number + place, size=(18 + place, 40 - 3 * place))
            picture.save(Path("query", name, "more of them" if place % 2 else "", f"q {place}.jpg"), quality=95)
    return tmp_path


def classified(*options):
    main(["classify", "--support", "support", "--query", "query", "--output", "out", *options])
    rows = list(csv.DictReader(Path("out/predictions.csv").read_text(encoding="utf-8").splitlines()))
    return rows, json.loads(Path("out/run.json").read_text(encoding="utf-8"))


def refused(capsys, *options, output="out"):
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main(["classify", "--support", "support", "--query", "query", "--output", output, *options])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1, message
    assert sorted(Path().rglob("*")) == before, "something was written"
    return message


def test_pictures_are_classified_with_probabilities_before_and_after(work, model, capsys):
    rows, record = classified("--ckpt_path", str(model), "--query_labels")
    said = capsys.readouterr().out
    assert "12 pictures classified after 6 labelled ones of 3 classes" in said
    assert "accuracy on 12 queries of known class: 100.00 % before looking at all together, 100.00 % after" in said
    assert {row["path"] for row in rows} == {
        path.relative_to("query").as_posix() for path in Path("query").rglob("*.jpg")
    }
    for row in rows:
        after = {name: float(row[f"probability {name}"]) for name in COLOURS}
        assert sum(after.values()) == pytest.approx(1, abs=1e-4)
        assert sum(float(row[f"before {name}"]) for name in COLOURS) == pytest.approx(1, abs=1e-4)
        best, second = sorted(after.values())[::-1][:2]
        assert row["predicted"] == max(after, key=after.get) == row["path"].split("/")[0]
        assert float(row["probability"]) == pytest.approx(best)
        assert float(row["margin"]) == pytest.approx(best - second, abs=2e-6)
        assert row["predicted_before"] in COLOURS
    assert record["classes"] == sorted(COLOURS) and record["n_query"] == 12 and record["skipped"] == []
    assert sorted(path.name for path in Path("out").iterdir()) == ["predictions.csv", "report.html", "run.json"]


def test_without_a_checkpoint_by_a_timm_name_and_a_method_without_training(work, capsys):
    torch.manual_seed(0)
    torch.save(BackboneConfig("test_efficientnet", image_size=32).create().state_dict(), "published.pth")
    options = ["--backbone", "test_efficientnet", "--weights", "published.pth", "--image_size", "32"]
    rows, record = classified(*options, "--method", "TIM", "--method.n_iterations", "20", "--query_labels")
    assert record["settings"]["method"] == "TIM" and len(rows) == 12
    rows, record = classified(*options, "--overwrite")
    assert record["settings"]["method"] == "UniversalSIB" and len(rows) == 12
    rows, record = classified(*options, "--overwrite", "--none_of_these", "learned")
    assert record["settings"]["none of these"] == "learned above 0.5"
    assert {row["none_of_these"] for row in rows} <= {"true", "false"}
    assert all((float(row["novelty"]) > 0.5) == (row["none_of_these"] == "true") for row in rows)
    message = refused(capsys, *options, "--overwrite", "--none_of_these", "learned", "--method", "TIM")
    assert "none_of_these: TIM does not tell pictures of no class; give distance or energy" in message


def test_pictures_are_encoded_once_and_the_answer_is_the_same(work, model, capfd, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(work / "cache"))
    options = ("--ckpt_path", str(model), "--overwrite")
    classified(*options, "--store_features", "false")
    wanted = Path("out/predictions.csv").read_bytes()
    assert not Path("cache").exists()
    Path("out").rename("before")
    assert classified(*options) and Path("out/report.html").read_bytes() == Path("before/report.html").read_bytes()
    assert {file.kind for file in cached_files(work / "cache")} == {FEATURES, PICTURES}
    assert Path("out/predictions.csv").read_bytes() == wanted
    Path("support/蓝色/shot 0.png").rename("support/rot und grün/shot 9.png")  # a label is corrected
    monkeypatch.setattr("fewshot.classification.encoder.PictureEncoder.features_of", lambda *_: pytest.fail("encodes"))
    monkeypatch.setattr("fewshot.classification.report.thumbnails.thumbnail", lambda *_: pytest.fail("decodes"))
    rows, record = classified(*options, "--method", "TIM", "--method.n_iterations", "5")
    assert len(rows) == 12 and record["settings"]["method"] == "TIM"
    Path("support/rot und grün/shot 9.png").rename("support/蓝色/shot 0.png")
    assert classified(*options) and Path("out/predictions.csv").read_bytes() == wanted
    main(["cache"])
    assert "conv4_32" in capfd.readouterr().out


def test_chunks_and_flat_folders(work, model):
    for path in list(Path("query").rglob("*.jpg")):
        path.rename(Path("query", f"{path.parent.name} {path.parent.parent.name} {path.name}"))
    rows, record = classified("--ckpt_path", str(model), "--chunk_size", "5")
    assert len(rows) == 12 and "5 pictures at most" in record["settings"]["looked at together"]


def test_pictures_of_every_mode_pillow_reads(work, model):
    base = pixels((40, 40, 200), 7)
    folder = Path("query", "modes")
    folder.mkdir()
    base.convert("L").save(folder / "grey.png")
    base.convert("P").save(folder / "palette.gif")
    base.convert("RGBA").save(folder / "alpha.webp")
    base.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257).save(folder / "sixteen.tif")
    base.convert("1").save(folder / "one bit.bmp")
    base.convert("LA").save(folder / "grey alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels((40, 40, 200), 8, size=(12, 60)).save(folder / "turned.jpeg", exif=exif)
    pixels((40, 40, 200), 9, size=(2, 3)).save(folder / "tiny.PNG")
    Path(folder, "notes.txt").write_text("no picture")
    Path(folder, ".hidden.png").write_text("no picture")
    rows, _ = classified("--ckpt_path", str(model))
    assert len(rows) == 12 + 9
    assert not {".txt", ".pdf"} & {*picture_endings()}


def test_a_broken_picture_stops_the_run_or_is_skipped_by_name(work, model, capsys):
    Path("query", "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    message = refused(capsys, "--ckpt_path", str(model))
    assert "cannot read picture query/broken.jpg" in message and "--broken skip goes on without it" in message
    rows, record = classified("--ckpt_path", str(model), "--broken", "skip")
    assert len(rows) == 12 and record["skipped"][0]["picture"] == "query/broken.jpg"
    assert "skipped: cannot read picture query/broken.jpg" in capsys.readouterr().out
    for path in Path("support", "蓝色").iterdir():
        path.write_bytes(b"nothing")
    message = refused(capsys, "--ckpt_path", str(model), "--broken", "skip", output="other")
    assert "no picture of class '蓝色' can be read" in message


def test_what_is_left_out_is_counted_and_named(work, model, capsys):
    for name in ("query/a.heics", "query/raw.NEF", "query/no ending", "support/loose.png", "support/notes.txt"):
        Path(name).write_bytes(b"x")
    os.mkfifo("query/pipe.jpg")
    pixels((1, 2, 3), 0, size=(1, 1)).save("query/dot.png")
    _, record = classified("--ckpt_path", str(model), "--broken", "skip")
    reasons = {Path(one["picture"]).name: one["reason"] for one in record["skipped"]}
    assert reasons["loose.png"].endswith("it lies in no class folder") and "ending .nef" in reasons["raw.NEF"]
    assert reasons["pipe.jpg"].startswith("cannot read picture query/pipe.jpg (it is no regular file)")
    assert "query/dot.png (it has 1 x 1 pixels" in reasons["dot.png"] and reasons["no ending"].endswith("no ending")
    assert len(reasons) == 7 and "skipped: 7 files in all, which run.json names" in capsys.readouterr().out


def test_no_name_is_a_formula_in_the_table(work, model):
    Path("query/=HYPERLINK(1)").mkdir()
    pixels((1, 2, 3), 0).save("query/=HYPERLINK(1)/x.png")
    Path("support/蓝色").rename("support/@SUM(1)")
    classified("--ckpt_path", str(model))
    with open("out/predictions.csv", newline="", encoding="utf-8") as file:
        text = file.read()
    header, *rows = read_csv(text)
    assert "probability @SUM(1)" in header and "=HYPERLINK(1)/x.png" in [row[0] for row in rows]
    assert "'=HYPERLINK(1)/x.png" in text and all(row[0][0] != "=" for row in csv.reader(text.splitlines()))
    assert {row[1] for row in rows} <= {"@SUM(1)", *COLOURS}


def test_the_report_tells_nobody_where_things_lie(work, model):
    Path("query/notes.txt").touch()
    Path("query/broken.jpg").touch()
    where = ["--support", str(work / "support"), "--query", str(work / "query"), "--ckpt_path", str(model)]
    classified(*where, "--broken", "skip")
    report = Path("out/report.html").read_text(encoding="utf-8")
    assert "broken.jpg" in report and "notes.txt" in report
    assert str(work) not in report and str(model.parent) not in report
    assert "--previous out</code>" in report


def test_bad_folders_are_named(work, model, capsys):
    options = ("--ckpt_path", str(model))
    Path("support", "empty").mkdir()
    assert "class 'empty' has no picture" in refused(capsys, *options)
    Path("support", "empty").rmdir()
    assert "is not there; put labelled pictures as" in refused(capsys, *options, "--support", "nowhere")
    assert "query: " in (message := refused(capsys, *options, "--query", "nowhere")) and "is not there" in message
    Path("nothing").mkdir()
    assert "nothing has no picture in it" in refused(capsys, *options, "--query", "nothing")
    assert "nothing has no class folder in it" in refused(capsys, *options, "--support", "nothing")
    name = next(iter(COLOURS))
    assert "2 pictures and no class folder" in refused(capsys, *options, "--support", "support/蓝色")
    Path("one", name).mkdir(parents=True)
    pixels((9, 9, 9), 1).save(Path("one", name, "x.png"))
    assert f"one class alone, '{name}'" in refused(capsys, *options, "--support", "one")
    message = refused(capsys, *options, "--query", "support")
    assert "is the same picture as support/" in message and "remove it from one of the two" in message
    twin = next(Path("support", "蓝色").iterdir())
    copy = Path("query", "copy under another name.png")
    copy.write_bytes(twin.read_bytes())
    assert f"query: {copy} is the same picture as {twin}" in refused(capsys, *options)
    copy.rename(Path("support", name, "twin.png"))
    assert "are the same picture in two classes" in refused(capsys, *options)


def test_bad_options_are_named(work, model, capsys):
    options = ("--ckpt_path", str(model))
    assert "nothing encodes the pictures; give --ckpt_path" in refused(capsys)
    assert "chunk_size=0; give 1 or more" in refused(capsys, *options, "--chunk_size", "0")
    assert "batch_size=0" in refused(capsys, *options, "--batch_size", "0")
    assert "not found" in refused(capsys, "--ckpt_path", "nowhere")
    assert "did you mean" in refused(capsys, "--backbone", "resnet19")
    assert "give --none_of_these distance" in refused(capsys, *options, "--none_share", "0.1")
    for temperature in ("0", "1e-300"):  # before a picture is read
        message = refused(capsys, "--backbone", "resnet18", "--weights", "none.pth", "--temperature", temperature)
        assert "give a number in 0.0001..10000" in message
    assert "report_pictures=0" in refused(capsys, *options, "--report_pictures", "0")
    assert "none_share=2.0" in refused(capsys, *options, "--none_of_these", "distance", "--none_share", "2")
    assert "device='cuba' cannot be used here" in refused(capsys, *options, "--device", "cuba")
    assert "precision" in refused(capsys, *options, "--precision", "8-bit")
    assert "needs a GPU; give bf16-mixed" in refused(capsys, *options, "--device", "cpu", "--precision", "16-mixed")
    assert "wrong" in refused(capsys, *options, "--broken", "wrong")
    assert "supprt" in refused(capsys, *options, "--supprt", "x")
    Path("query", "蓝色").rename(Path("query", "a"))
    for name in COLOURS:
        if Path("query", name).is_dir():
            Path("query", name).rename(Path("query", f"x{len(name)}"))
    assert "no folder of the queries is named after a class" in refused(capsys, *options, "--query_labels")


def test_a_method_for_another_number_of_classes_is_refused_before_encoding(work, tmp_path, capsys, monkeypatch):
    module = FewShotModule(SIB(gradient=MLPGradient(5)), BackboneConfig("conv4_32", image_size=16))
    save_trained(module.eval(), Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3), tmp_path / "five")
    monkeypatch.setattr("fewshot.commands.inputs.encoded_folders", lambda *_, **__: pytest.fail("it encodes"))
    message = refused(capsys, "--ckpt_path", "five")
    assert "SIB of this checkpoint serves 5 classes alone, and the support has 3; give --method UniversalSIB" in message


def test_a_method_without_its_training_is_refused_before_encoding(work, model, capsys, monkeypatch):
    monkeypatch.setattr("fewshot.commands.inputs.encoded_folders", lambda *_, **__: pytest.fail("it encodes"))
    options = ("--ckpt_path", str(model))
    assert "--method SIB has to be trained first; give the checkpoint" in refused(capsys, *options, "--method", "SIB")
    message = refused(capsys, *options, "--method", "TransductiveFineTuning")
    assert "asks for the classifier of the training classes" in message and "SimpleShot" in message
    assert "checkpoint and image_size given" in refused(capsys, *options, "--image_size", "64")
    for name in COLOURS:
        for path in list(Path("support", name).iterdir())[1:]:
            path.unlink()
    assert "no class has two support pictures" in refused(capsys, *options, "--none_of_these", "energy")


def test_names_in_another_encoding_are_escaped(work, model, capsys):
    """As archives of other systems leave them: bytes that are no UTF-8."""
    strange, class_name = os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"gr\xfcn")
    Path("query", "蓝色", "q 0.jpg").rename(Path("query", strange))
    Path("query", f"broken {strange}").write_bytes(b"nothing")
    Path("support", "蓝色").rename(Path("support", class_name))
    rows, record = classified("--ckpt_path", str(model), "--broken", "skip")
    assert r"caf\udce9.jpg" in {row["path"] for row in rows} and r"probability gr\udcfcn" in rows[0]
    assert record["skipped"][0]["picture"] == f"query/broken {strange}" and class_name in record["classes"]
    assert r"skipped: cannot read picture query/broken caf\udce9.jpg" in capsys.readouterr().out


def test_accuracy_without_a_readable_query_of_a_known_class(work, model, capsys):
    for path in Path("query").rglob("*.jpg"):
        path.write_bytes(b"nothing")
    pixels((9, 9, 9), 1).save(Path("query", "of no class.png"))
    classified("--ckpt_path", str(model), "--broken", "skip", "--query_labels")
    assert "accuracy: no query of a known class could be read" in capsys.readouterr().out


def test_links_that_lead_nowhere_or_back(work, model, capsys):
    Path("query", "back").symlink_to(work / "query", target_is_directory=True)
    assert len(classified("--ckpt_path", str(model))[0]) == 12
    Path("query", "nowhere.png").symlink_to("not there.png")
    assert "cannot read picture query/nowhere.png" in refused(capsys, "--ckpt_path", str(model), output="other")


def test_what_is_there_is_not_overwritten_unasked(work, model, capsys, monkeypatch):
    classified("--ckpt_path", str(model))
    first = Path("out/predictions.csv").read_text(encoding="utf-8")
    assert "is there already" in refused(capsys, "--ckpt_path", str(model))
    classified("--ckpt_path", str(model), "--overwrite")
    assert Path("out/predictions.csv").read_text(encoding="utf-8") == first
    Path("out/thesis.txt").write_text("mine")
    assert "it holds thesis.txt, which nothing here wrote" in refused(capsys, "--ckpt_path", str(model), "--overwrite")
    Path("file").write_text("")
    assert "is a file; name a folder" in refused(capsys, "--ckpt_path", str(model), output="file")
    monkeypatch.setattr("fewshot.commands.inputs.encoded_folders", lambda *_, **__: pytest.fail("it encodes"))
    assert "file is a file; name another folder" in refused(capsys, "--ckpt_path", str(model), output="file/out")
    monkeypatch.setenv("PLACE", "out")
    assert "out is there already" in refused(capsys, "--ckpt_path", str(model), output="$PLACE")


def test_an_interrupted_run_leaves_nothing(work, model, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fewshot.commands.classify.run_record", interrupted)
    before = sorted(Path().rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        classified("--ckpt_path", str(model))
    assert sorted(Path().rglob("*")) == before


def test_what_every_row_of_the_table_asks_for_is_counted_once():
    """All probabilities were sorted for every row: 2.7 s for 3,000 pictures of 50 classes, and four times for twice."""
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 6)
    names, files = tuple("abcd"), tuple(map(Path, "123456"))
    features = np.zeros((6, 2), dtype=np.float32)
    made = Classified(
        *(names, files[:4], np.arange(4), files, tuple("123456"), features[:4], features, probabilities, probabilities)
    )
    for name in ("predicted", "predicted_before", "margins", "flagged"):
        assert getattr(made, name) is getattr(made, name)


def test_queries_unlike_every_class_are_flagged(work, model):
    Path("query", "stripes").mkdir()
    for number in range(3):
        stripes = np.zeros((24, 24, 3), dtype=np.uint8)
        stripes[:, ::2] = 255
        stripes[number] = 90
        Image.fromarray(stripes).save(Path("query", "stripes", f"{number}.png"))
    rows, record = classified("--ckpt_path", str(model), "--none_of_these", "distance", "--none_share", "0.2")
    assert record["n_none_of_these"] == 3
    assert {row["path"].split("/")[0] for row in rows if row["none_of_these"] == "true"} == {"stripes"}


@pytest.mark.parametrize("measure", ["distance", "energy"])
def test_novelty_tells_classes_that_are_not_in_the_support(measure):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 64, generator=generator)
    labels = torch.arange(8).repeat_interleave(40)
    features = (centres[labels] + 0.8 * torch.randn(320, 64, generator=generator)).relu()
    known = labels < 5
    support = torch.cat([features[labels == c][:5] for c in range(5)])
    support_labels = torch.arange(5).repeat_interleave(5)
    query = torch.cat([features[labels == c][5:] for c in range(8)])
    is_new = torch.arange(8).repeat_interleave(35) >= 5
    scores = novelty(support, support_labels, query, 5, measure)
    assert roc_auc_score(is_new, scores) > 0.9
    limit = threshold(support, support_labels, query, 5, measure)
    assert (scores[~is_new] > limit).float().mean() < 0.35
    assert (scores[is_new] > limit).float().mean() > 0.6
    share = threshold(support, support_labels, query, 5, measure, share=0.25)
    assert (scores > share).float().mean() == pytest.approx(0.25, abs=0.01)
    assert len(support_novelty(support, support_labels, query, 5, measure)) == 25
    assert known.any()
    with pytest.raises(ValueError, match="no class has two support pictures"):
        threshold(support[::5], support_labels[::5], query, 5, measure)


def test_novelty_on_held_out_classes_of_real_pictures(data_root):
    from fewshot.data.pictures import open_picture, square_picture

    preprocessing = Preprocessing(image_size=28, stored_size=28, mean=(0.5,), std=(0.5,), channels=1)
    folders = sorted((data_root / "omniglot" / "test").iterdir())[:40:4]
    pictures = torch.stack(
        [
            torch.tensor(square_picture(open_picture(path), preprocessing)).float().flatten()
            for folder in folders
            for path in sorted(folder.iterdir())[:20]
        ]
    )
    pooled = torch.nn.functional.avg_pool2d(255 - pictures.view(-1, 1, 28, 28), 4).flatten(1)
    labels = torch.arange(10).repeat_interleave(len(pooled) // 10)
    support = torch.cat([pooled[labels == c][:5] for c in range(6)])
    query = torch.cat([pooled[labels == c][5:] for c in range(10)])
    is_new = torch.arange(10).repeat_interleave(15) >= 6
    scores = novelty(support, torch.arange(6).repeat_interleave(5), query, 6, "distance")
    assert roc_auc_score(is_new, scores) > 0.6


@pytest.mark.slow
def test_killed_in_the_middle_it_leaves_no_output(work, model):
    code = (
        "import fewshot.commands.classify as c, os, signal\n"
        "c.write_predictions = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from fewshot.commands import main\n"
        "main(['classify', '--support', 'support', '--query', 'query', '--output', 'out', "
        f"'--ckpt_path', {str(model)!r}])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == -9
    assert not Path("out").exists()


@pytest.mark.slow
def test_dark_ink_is_read_as_the_model_was_trained_to(data_root, tmp_path, monkeypatch):
    """Features of drawings through the classifier are those of the data set: Omniglot's are read with bright ink."""
    from fewshot import FewShotClassifier
    from fewshot.data.datasets import Omniglot
    from fewshot.data.transforms import evaluation_transform

    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    dataset = Omniglot(str(data_root / "omniglot"), rotations=False)
    torch.manual_seed(0)
    module = FewShotModule(SIB(gradient=EquivariantGradient()), BackboneConfig("conv4_32", in_chans=1, image_size=28))
    save_trained(module.eval(), dataset.preprocessing, tmp_path / "model")
    images = dataset.images("test")
    files = [data_root / "omniglot" / "test" / images.names[number] for number in (0, 25, 300)]
    with torch.no_grad():
        pictures = evaluation_transform(images.read(np.array([0, 25, 300])), dataset.preprocessing)
        expected = module.backbone(pictures)
    found = FewShotClassifier.from_checkpoint(tmp_path / "model").encoder.encode(files).features
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
