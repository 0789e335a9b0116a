"""What is wrong with a checkpoint is one line, before anything is read, and nothing of it is run."""

import collections
import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from weights_cases import FIXTURES, SPECS

from classact.weights import exporting, opening
from classact.weights.errors import WeightsError
from classact.weights.files import packed


def copy(name, folder):
    shutil.copytree(FIXTURES / name, folder)
    return folder


def changed(folder, change, file="model.safetensors"):
    """The arrays of a file, changed and written back."""
    arrays = safetensors.numpy.load_file(folder / file)
    change(arrays)
    safetensors.numpy.save_file(arrays, folder / file)


def refusal(spec):
    with pytest.raises(WeightsError) as caught:
        opening.read(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_first_missing_surplus_and_misshaped_names_are_in_one_error(tmp_path):
    def change(arrays):
        del arrays["text_projection.weight"]
        del arrays["logit_scale"]
        arrays["adapter.weight"] = np.zeros(3, np.float32)
        arrays["visual_projection.weight"] = np.zeros((9, 16), np.float32)
        name = "vision_model.post_layernorm.bias"
        arrays[name] = arrays[name].astype(np.int32)

    folder = copy("hf_clip", tmp_path / "it")
    changed(folder, change)
    said = refusal(f"hf:{folder}")
    for part in (
        "2 missing (first: text_projection.weight)",
        "1 surplus (first: adapter.weight)",
        "1 of another shape (first: visual_projection.weight [9, 16] where [10, 16] is expected)",
        "1 no floats (first: vision_model.post_layernorm.bias of I32)",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("hf_clip", "model.safetensors"),
        ("big_vision_gap", "checkpoint.npz"),
        ("open_clip_clip", "epoch_3.pt"),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_truncated_file_is_one_line(name, file, share, tmp_path):
    folder = copy(name, tmp_path / "it")
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: int(share * len(whole))])
    tool = name.rpartition("_")[0]
    spec = {"hf": f"hf:{folder}", "big_vision": f"big_vision:{folder}/{file}"}.get(
        tool, f"open_clip:{folder}/{file}?model=ViT-B-32"
    )
    assert file in refusal(spec)


def test_shards_are_all_needed_and_lie_beside_their_index(tmp_path):
    folder = copy("hf_vit", tmp_path / "it")
    index = folder / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    shards = sorted(set(said["weight_map"].values()))
    assert len(shards) > 1
    (folder / shards[1]).unlink()
    assert f"{shards[1]}: no such file" in refusal(f"hf:{folder}")
    said["weight_map"] = {name: f"../{shard}" for name, shard in said["weight_map"].items()}
    index.write_text(json.dumps(said))
    assert "expected files beside it" in refusal(f"hf:{folder}")
    index.write_text("[]")
    assert "no index of safetensors shards" in refusal(f"hf:{folder}")


class Command:
    """What a pickle can do."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def torch_file(path, found, data=b"", more=()):
    """A file as PyTorch writes it, of hand-made opcodes where pickle itself would not write them."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("it/data.pkl", found)
        archive.writestr("it/data/0", data)
        for name in more:
            archive.writestr(name, b"")
    return path


def tensor(shape, stride, offset=0, kind="FloatStorage"):
    """Opcodes of one tensor."""
    numbers = "".join(f"I{number}\n" for number in shape)
    strides = "".join(f"I{number}\n" for number in stride)
    return (
        f"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\n{kind}\nV0\nVcpu\nI1\ntQI{offset}\n"
        f"({numbers}t({strides}tI00\nNtR"
    ).encode()


def state(*tensors):
    """Opcodes of a dict of tensors by name."""
    return b"(d" + b"".join(b"V" + name.encode() + b"\n" + said + b"s" for name, said in tensors) + b"."


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pickle.dumps({"a": collections.Counter("aa")}), "it holds collections.Counter"),
        (pickle.dumps({"a": print}), "it holds builtins.print"),
        (pickle.dumps(["a"]), "expected tensors by name"),
        (b"cos\nsystem\n(Vtrue\ntR.", "it holds os.system"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR.", "tensor without storage"),
        (b"\x80\x04nonsense", "no file of plain tensors"),
        (b"", "no file of plain tensors"),
    ],
)
def test_a_pickle_of_more_than_tensors_is_refused(found, said, tmp_path):
    path = torch_file(tmp_path / "it.pt", found)
    assert said in refusal(f"open_clip:{path}?model=ViT-B-32")


def test_nothing_that_a_pickle_says_is_run(tmp_path):
    path = torch_file(tmp_path / "it.pt", pickle.dumps({"weight": Command(tmp_path / "made")}))
    assert "mkdir" in refusal(f"open_clip:{path}?model=ViT-B-32")
    assert not (tmp_path / "made").exists()
    shutil.copy(path, tmp_path / "it.pkl")
    assert "pickles are not read" in refusal(f"open_clip:{tmp_path}/it.pkl?model=ViT-B-32")


def test_tensors_are_views_of_their_storage_and_not_beyond(tmp_path):
    from classact.weights.files.torch_zip import TorchFile

    data = np.arange(6, dtype=np.float32).tobytes()
    kinds = (
        ("fine", tensor((2, 2), (1, 2), 1)),
        ("beyond", tensor((2, 4), (4, 1))),
        ("back", tensor((2,), (-1,))),
        ("repeated", tensor((10**5, 10**4), (0, 0))),
        ("endless", tensor((2**70,), (0,))),
    )
    file = TorchFile(torch_file(tmp_path / "it.pt", state(*kinds), data))
    np.testing.assert_array_equal(file.read("fine"), [[1, 3], [2, 4]])
    for name in ("beyond", "back"):
        with pytest.raises(WeightsError, match=f"{name} cannot be read: it reaches beyond its storage"):
            file.read(name)
    # 4 GB of nothing, and more than there are numbers for.
    for name in ("repeated", "endless"):
        with pytest.raises(WeightsError, match="it has more elements than its storage"):
            file.read(name)
    script = torch_file(tmp_path / "script.pt", state(), more=["it/constants.pkl"])
    with pytest.raises(WeightsError, match="TorchScript"):
        TorchFile(script)


def test_a_description_of_a_model_that_is_none_is_one_line(tmp_path):
    checkpoint = opening.read(SPECS["big_vision_gap"])
    exporting.write(exporting.prepare(checkpoint, "safetensors", tmp_path / "it"), tmp_path / "it", "")
    path = tmp_path / "it" / "model.json"
    said = json.loads(path.read_text())
    for heads, why in ((0, "0 where a whole number of at least 1"), (3, "heads=3: it must divide width=16")):
        said["architecture"]["image"]["size"]["heads"] = heads
        path.write_text(json.dumps(said))
        assert why in refusal(f"safetensors:{tmp_path}/it")
    path.write_text(json.dumps({**said, "format": "another"}))
    assert "format='another'" in refusal(f"safetensors:{tmp_path}/it")


def of_npy(shape, data=b""):
    """A file of numpy's, which may say more than there is."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"shape": shape, "fortran_order": False, "descr": "<f4"})
    return made.getvalue() + data


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("w.npy", of_npy((10**12,)))], "w is larger than what is there of it"),
        ([("w.npy", of_npy((2**70,)))], "w is larger than what is there of it"),
        ([("w.npy", of_npy((1,), bytes(4))), ("w", of_npy((2,), bytes(8)))], "w is in it twice"),
        ([("w.npy", of_npy((10**6,), bytes(4 * 10**6)))], "would unpack to 4,000,128, as no weights do"),
    ],
)
def test_an_npz_of_more_than_there_is_of_it_is_refused(members, said, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_BYTES", 10**6)
    with zipfile.ZipFile(tmp_path / "it.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    assert said in refusal(f"big_vision:{tmp_path}/it.npz")
    # Of PyTorch's files the same is asked first.
    shutil.copy(tmp_path / "it.npz", tmp_path / "it.pt")
    assert ("unpack to" in refusal(f"open_clip:{tmp_path}/it.pt?model=ViT-B-32")) == ("unpack" in said)


def test_a_description_of_far_too_many_blocks_is_one_line(tmp_path):
    folder = copy("hf_vit", tmp_path / "it")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 10**9}))
    assert "a tower of 1,000,000,000 blocks: expected at most 1,000" in refusal(f"hf:{folder}")


@pytest.mark.parametrize(
    ("fixture", "name"),
    [("timm_map", "head.weight"), ("timm_map", "reg_token"), ("hf_vit", "classifier.weight")],
)
def test_an_array_with_too_few_axes_is_one_line(fixture, name, tmp_path):
    folder = copy(fixture, tmp_path / "it")
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    arrays = {}
    for path in sorted(folder.glob("model*.safetensors")):
        arrays |= safetensors.numpy.load_file(path)
    safetensors.numpy.save_file({**arrays, name: np.zeros((), np.float32)}, folder / "model.safetensors")
    tool = fixture.partition("_")[0]
    assert f"{name} [] has 0 axes" in refusal(f"{tool}:{folder}")


def test_an_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "it.npz", **{"embedding/kernel": np.array([Command(tmp_path / "made")], object)})
    said = refusal(f"big_vision:{tmp_path}/it.npz")
    assert "embedding/kernel" in said and not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("clip:x", "expected hf:PATH, open_clip:PATH, timm:PATH, big_vision:PATH, safetensors:PATH"),
        ("hf:", "a path is missing"),
        ("hf:/nowhere", "/nowhere: no such file or folder"),
        (f"{SPECS['hf_clip']}?imagesize=9", "unknown option 'imagesize': did you mean image_size"),
        (f"{SPECS['hf_clip']}?image_size=9", "image_size=9×9: expected multiples of its patch_size=4"),
        (f"{SPECS['hf_clip']}?image_size=-4", "image_size=-4: expected a number of pixels"),
        (f"{SPECS['hf_vit']}?head=off", "head=off: expected keep or drop"),
        (f"open_clip:{FIXTURES}/hf_clip", "no open_clip_config.json in it: say ?model=NAME"),
        (f"{SPECS['open_clip_clip']}?model=RN50", "model=RN50: known are ViT-"),
        (f"timm:{FIXTURES}/open_clip_siglip/open_clip_model.safetensors", "say ?model=NAME"),
        (f"{SPECS['timm_cls']}?model=resnet50", "expected one of timm's plain vit_"),
        (f"{SPECS['timm_cls']}?model=vit_small_patch16_dinov3", "expected one of timm's plain vit_"),
        (f"big_vision:{FIXTURES}/timm_cls/expected.npz", "embedding/kernel of 4 axes is expected"),
        (f"safetensors:{FIXTURES}/timm_cls", "model.json: no such file"),
        (f"hf:{FIXTURES}/timm_cls", "model_type=None: expected one of clip, siglip, vit"),
    ],
)
def test_a_bad_spec_is_one_line(spec, said):
    assert said in refusal(spec)


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("hf_clip", "vision_config.hidden_act", "relu", "hidden_act='relu': expected one of gelu"),
        ("hf_clip", "vision_config.num_attention_heads", 3, "num_attention_heads=3: expected a divisor of"),
        ("hf_clip", "text_config.vocab_size", "many", "vocab_size='many': expected a whole number"),
        ("hf_clip", "vision_config", 7, "vision_config=7: expected an object"),
        ("hf_siglip", "vision_config.vision_use_head", False, "vision_use_head=False: expected True"),
        ("hf_dinov2", "use_swiglu_ffn", True, "use_swiglu_ffn=True: expected False"),
        ("hf_dinov2", "model_type", "dinov3_vit", "rotary (RoPE)"),
        ("hf_siglip", "model_type", "siglip2", "NaFlex"),
        ("hf_vit", "layer_norm_eps", None, "layer_norm_eps=None: expected a number above 0"),
        ("hf_vit", "layer_norm_eps", 7, "epsilon=7.0: expected a number above 0 and below 1"),
    ],
)
def test_a_field_without_counterpart_is_named(name, field, value, said, tmp_path):
    folder = copy(name, tmp_path / "it")
    config = json.loads((folder / "config.json").read_text())
    *groups, last = field.split(".")
    inner = config
    for group in groups:
        inner = inner[group]
    inner[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    assert said in refusal(f"hf:{folder}")
    (folder / "config.json").write_text("{")
    assert "config.json: cannot be read" in refusal(f"hf:{folder}")


def test_an_end_of_2_is_the_largest_id_as_in_openais_clip(tmp_path):
    folder = copy("hf_clip", tmp_path / "it")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    assert opening.read(f"hf:{folder}").architecture.text.end_id == 39


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("model_args", "norm_layer", "rmsnorm"),
        ("model_args", "qk_norm", True),
        ("pretrained_cfg", "crop_pct", "all"),
        ("pretrained_cfg", "interpolation", 3),
        ("pretrained_cfg", "mean", [0.5]),
    ],
)
def test_what_shows_in_no_array_of_timms_must_be_known(group, field, value, tmp_path):
    folder = copy("timm_cls", tmp_path / "it")
    config = json.loads((folder / "config.json").read_text())
    config[group][field] = value
    (folder / "config.json").write_text(json.dumps(config))
    assert f"{field}={value!r}: expected" in refusal(f"timm:{folder}")
    (folder / "config.json").write_text(json.dumps({**config, group: 1}))
    assert f"{group}=1: expected an object" in refusal(f"timm:{folder}")


def test_a_head_that_reads_class_token_and_patches_is_left_out_or_refused(tmp_path):
    def change(arrays):
        arrays |= {f"dinov2.{name}": arrays.pop(name) for name in list(arrays)}
        arrays["classifier.weight"] = np.zeros((2, 32), np.float32)
        arrays["classifier.bias"] = np.zeros(2, np.float32)

    folder = copy("hf_dinov2", tmp_path / "it")
    changed_as_float(folder, change)
    assert "say ?head=drop" in refusal(f"hf:{folder}")
    dropped = opening.read(f"hf:{folder}?head=drop").variables["params"]
    np.testing.assert_array_equal(dropped["cls"], opening.read(SPECS["hf_dinov2"]).variables["params"]["cls"])


def changed_as_float(folder, change):
    """As `changed`, of a file in bfloat16, which safetensors does not read for numpy."""
    from classact.weights.files.opened import opened

    file = opened(folder / "model.safetensors")
    arrays = {name: file.read(name) for name in file.tensors}
    change(arrays)
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
