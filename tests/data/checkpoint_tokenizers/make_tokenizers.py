"""Makes `fixtures/`: small vocabularies, and what each tool's own tokenizer makes of captions with them.

What it needs is no dependency of classact; the environment of `tests/weights/make_fixtures.py` has it, with
`pip install sentencepiece protobuf` added:

    DIR/bin/python tests/data/checkpoint_tokenizers/make_tokenizers.py

The vocabularies are trained here, on made-up captions. With `--count=10000 --out=FOLDER` it makes the
same for so many captions, which are compared by

    CAPTIONS=10000 TOKENIZERS=FOLDER pytest tests/data/checkpoint_tokenizers
"""

import argparse
import io
import json
import pathlib
import shutil
import sys

import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

# As in `tests/weights/make_fixtures.py`.
for _name in ("nms", "qnms"):
    torch.library.define(
        f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )
from open_clip import tokenizer as open_clip  # noqa: E402

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
import odd_captions  # noqa: E402

LENGTH, IDS = 12, 420


def corpus():
    # What is not Latin is unknown, or bytes.
    return [
        text for text in odd_captions.captions(3_000, seed=1) if max(map(ord, text[:200]), default=0) < 384
    ]


def clip(out):
    """CLIP's, as its vocabulary and merges, and as transformers saves it."""
    library = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    library.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * IDS, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    library.train_from_iterator(corpus(), trainer)
    saved = json.loads(library.to_str())["model"]
    ids = {name: i for i, name in enumerate(sorted(saved["vocab"], key=saved["vocab"].get))}
    ids |= {
        name: len(ids) + i for i, name in enumerate(f"{letter}</w>" for letter in alphabet) if name not in ids
    }
    ids = {name: i for i, name in enumerate(ids)}
    ids |= {"<|startoftext|>": len(ids), "<|endoftext|>": len(ids) + 1}
    files = out / "hf_clip_files"
    files.mkdir(parents=True)
    (files / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in saved["merges"]]
    (files / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (files / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    made = transformers.CLIPTokenizer.from_pretrained(files)
    made.save_pretrained(out / "hf_clip")
    return made


def sentences(out, name):
    """A vocabulary of sentencepiece."""
    place = out / name
    place.mkdir(parents=True)
    # Not by `model_prefix`, which stands in the file.
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, vocab_size=IDS // 2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.98, model_type="unigram",
        minloglevel=2, num_threads=1,
    )  # fmt: skip
    (place / "spiece.model").write_bytes(model.getvalue())
    return place / "spiece.model"


def library_of(out, name, cleaned, **changes):
    """A `tokenizer.json` with an end and a filling token, as T5's and Gemma's are."""
    place = out / name
    place.mkdir(parents=True)
    special = ["<pad>", "</s>", "<unk>"]
    if name == "hf_siglip2":
        special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
        library = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        library.normalizer = normalizers.Replace(" ", "▁")
        library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=IDS + 256, special_tokens=special, limit_alphabet=100, show_progress=False
        )
        library.train_from_iterator((text.lower() for text in corpus()), trainer)
        saved = json.loads(library.to_str())
        ids = saved["model"]["vocab"]
        saved["model"]["vocab"] |= {name: len(ids) + i for i, name in enumerate(bytes_)}
        library = tokenizers.Tokenizer.from_str(json.dumps(saved))
        library.post_processor = processors.TemplateProcessing(
            single="$A <eos>", special_tokens=[("<eos>", 1)]
        )
    else:
        library = tokenizers.Tokenizer(models.Unigram())
        library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=IDS, special_tokens=special, unk_token="<unk>", show_progress=False
        )
        library.train_from_iterator((cleaned(text) for text in corpus()), trainer)
        library.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    library.save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text(json.dumps({"pad_token": special[0], **changes}))
    return place


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "fixtures")
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    texts = odd_captions.captions(given.count)
    settings = {"max_length": LENGTH, "padding": "max_length", "truncation": True}
    made = clip(given.out)
    again = transformers.CLIPTokenizer.from_pretrained(given.out / "hf_clip")
    found = {
        "hf_clip_files": made(texts, **settings).input_ids,
        "hf_clip": again(texts, **settings).input_ids,
    }
    model = sentences(given.out, "hf_siglip")
    (model.parent / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    siglip = transformers.SiglipTokenizer.from_pretrained(model.parent)
    found["hf_siglip"] = siglip(texts, **settings).input_ids
    place = library_of(given.out, "hf_siglip2", str, tokenizer_class="Siglip2Tokenizer", padding_side="right")
    gemma = transformers.AutoTokenizer.from_pretrained(place)
    assert type(gemma).__name__ == "Siglip2Tokenizer", type(gemma)
    found["hf_siglip2"] = gemma(texts, **settings).input_ids
    for clean in ("canonicalize", "whitespace"):
        name = f"open_clip_{clean}"
        place = library_of(
            given.out, name, open_clip.get_clean_fn(clean), tokenizer_class="PreTrainedTokenizerFast"
        )
        text = {"hf_tokenizer_name": "made-here", "tokenizer_kwargs": {"clean": clean}}
        (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": text}}))
        own = open_clip.HFTokenizer(str(place), context_length=LENGTH, clean=clean)
        found[name] = own(texts).numpy()
    found["open_clip"] = open_clip.SimpleTokenizer(context_length=LENGTH)(texts).numpy()
    rows = {name: np.asarray(ids, np.int32) for name, ids in found.items()}
    np.savez_compressed(given.out / "expected.npz", **rows)
    for file in given.out.rglob("*"):
        if file.name in ("README.md", "chat_template.jinja"):
            file.unlink()


if __name__ == "__main__":
    main()
