"""Against fresh loads by transformers and sentence-transformers themselves."""

import json
import logging
import os
import shutil
import time

import pytest
import torch
from parity_models import save_reranker, save_t5
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import save_decoder, save_encoder
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

import tasks.resident
from tasks.errors import CheckpointError, DeviceError
from tasks.resident import forget, resident_decoder, resident_encoder, resident_model, writable_module


@pytest.fixture(autouse=True)
def no_resident():
    yield
    tasks.resident._slots.clear()  # `forget` also collects garbage, which takes a while


@pytest.fixture
def loads(monkeypatch):
    """The folders that were loaded afresh, in order."""
    seen = []
    load = tasks.resident.load_module

    def load_and_note(kind, folder, dtype, device):
        seen.append(folder.name)
        return load(kind, folder, dtype, device)

    monkeypatch.setattr(tasks.resident, "load_module", load_and_note)
    return seen


def assert_equal_modules(module, expected):
    found, wanted = module.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def assert_is_fresh(decoder, folder, dtype=torch.float32):
    assert_equal_modules(decoder.model, AutoModelForCausalLM.from_pretrained(folder, dtype=dtype))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_streaming_one_decoder_after_the_other_equals_fresh_loads(tmp_path, loads, tied, dtype):
    a = save_decoder(tmp_path / "a", 1, tied=tied, dtype=torch.bfloat16)
    b = save_decoder(tmp_path / "b", 2, tied=tied, dtype=torch.bfloat16)
    first = resident_decoder(a, dtype, "cpu")
    assert_is_fresh(first, a, getattr(torch, dtype))
    for folder in (b, a):
        decoder = resident_decoder(folder, dtype, "cpu")
        assert decoder.model is first.model
        assert decoder.folder == folder
        assert_is_fresh(decoder, folder, getattr(torch, dtype))
    assert loads == ["a"]


def test_shards_are_streamed_over_a_module_from_one_file(tmp_path, loads):
    a = save_decoder(tmp_path / "a", 1)
    b = save_decoder(tmp_path / "b", 2, max_shard_size="5KB")
    assert len(list(b.glob("*.safetensors"))) > 1
    resident_decoder(a, "float32", "cpu")
    assert_is_fresh(resident_decoder(b, "float32", "cpu"), b)
    assert loads == ["a"]


def test_the_same_files_are_not_read_again_until_they_change(tmp_path, loads, monkeypatch):
    a = save_decoder(tmp_path / "a", 1)
    resident_decoder(a, "float32", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(tasks.resident, "_read_tensors", lambda views: pytest.fail("read again"))
        resident_decoder(a, "float32", "cpu")
    save_decoder(a, 2)
    assert_is_fresh(resident_decoder(a, "float32", "cpu"), a)


def test_content_written_in_place_under_its_old_time_is_read_again(tmp_path):
    a, b = save_decoder(tmp_path / "a", 1), save_decoder(tmp_path / "b", 2)
    # In another precision than the file's: the same may lie in the file's own pages.
    resident_decoder(a, "bfloat16", "cpu")
    file = a / "model.safetensors"
    status = file.stat()
    time.sleep(0.02)  # A tick of the file system's clock.
    file.write_bytes((b / "model.safetensors").read_bytes())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = resident_decoder(a, "bfloat16", "cpu").model.state_dict()
    expected = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_another_skeleton_or_dtype_is_loaded_afresh(tmp_path, loads):
    a = save_decoder(tmp_path / "a", 1)
    b = save_decoder(tmp_path / "b", 2, template="$A")  # another tokenizer
    resident_decoder(a, "float32", "cpu")
    assert resident_decoder(b, "float32", "cpu").tokenizer("a")["input_ids"] == [3]
    resident_decoder(b, "bfloat16", "cpu")
    assert loads == ["a", "b", "b"]


def test_a_module_that_does_not_hold_its_files_tensors_as_they_are_is_never_streamed_over(tmp_path, loads):
    # Stands for an architecture whose tensors transformers permutes while it loads them.
    a, b = save_decoder(tmp_path / "a", 1), save_decoder(tmp_path / "b", 2)
    model = resident_decoder(a, "float32", "cpu").model
    with torch.no_grad():
        model.model.layers[0].mlp.gate_proj.weight.mul_(-1)
    assert_is_fresh(resident_decoder(b, "float32", "cpu"), b)
    assert loads == ["a", "b"]


def test_a_second_tensor_for_a_tied_parameter_is_loaded_afresh(tmp_path, loads):
    # transformers unties the two when they differ; copying both into one place would keep the last.
    a, b = save_decoder(tmp_path / "a", 1), save_decoder(tmp_path / "b", 2)
    tensors = load_file(b / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, b / "model.safetensors", metadata={"format": "pt"})
    resident_decoder(a, "float32", "cpu")
    assert_is_fresh(resident_decoder(b, "float32", "cpu"), b)
    assert loads == ["a", "b"]


def test_what_cannot_be_proven_since_the_predecessor_is_gone_is_loaded_afresh(tmp_path, loads):
    a, b, c, d = (save_encoder(tmp_path / name, seed) for seed, name in enumerate("abcd"))
    for folder in (a, b, c, d):
        assert_equal_modules(resident_encoder(folder, "float32", "cpu"), SentenceTransformer(str(folder), device="cpu"))
        if folder != b:
            shutil.rmtree(folder)
    # After b, whose tensors were compared when c came, it does not matter that c is gone.
    assert loads == ["a", "b"]


def test_a_decoder_is_ready_for_inference_only(tmp_path):
    model = resident_decoder(save_decoder(tmp_path / "a", 1), "float32", "cpu").model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_missing_tensor_is_refused_and_not_filled_with_random_numbers(tmp_path):
    a = save_decoder(tmp_path / "a", 1)
    tensors = load_file(a / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, a / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"a: the model's tensors model.norm.weight are not in its files"):
        resident_decoder(a, "float32", "cpu")


def test_a_folder_that_cannot_be_loaded_leaves_nothing_behind(tmp_path):
    a, b = save_decoder(tmp_path / "a", 1), save_decoder(tmp_path / "b", 2)
    (b / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    resident_decoder(a, "float32", "cpu")
    with pytest.raises(CheckpointError, match=r"b: the model cannot be loaded: ValueError: .*unheard_of"):
        resident_decoder(b, "float32", "cpu")
    assert not tasks.resident._slots
    assert_is_fresh(resident_decoder(a, "float32", "cpu"), a)


def test_an_error_in_the_midst_of_streaming_leaves_nothing_behind(tmp_path, monkeypatch):
    a, b = save_decoder(tmp_path / "a", 1), save_decoder(tmp_path / "b", 2)
    resident_decoder(a, "float32", "cpu")
    read = tasks.resident._read_tensors

    def read_half(views):
        if next(iter(views.values())).file.parent == b:
            yield next(read(views))
            raise OSError("the disk is gone")
        yield from read(views)

    with monkeypatch.context() as patch:
        patch.setattr(tasks.resident, "_read_tensors", read_half)
        with pytest.raises(OSError, match="the disk is gone"):
            resident_decoder(b, "float32", "cpu")
    assert not tasks.resident._slots
    assert_is_fresh(resident_decoder(a, "float32", "cpu"), a)


def test_a_tokenizer_without_offsets_is_refused(tmp_path, monkeypatch):
    a = save_decoder(tmp_path / "a", 1)
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.is_fast", False)
    with pytest.raises(CheckpointError, match="cannot say which characters a token covers"):
        resident_decoder(a, "float32", "cpu")


def test_a_model_that_does_not_fit_is_a_fault_of_the_device(tmp_path, monkeypatch):
    def run_out(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    a = save_decoder(tmp_path / "a", 1)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", run_out)
    with pytest.raises(DeviceError, match="the model does not fit into the memory of cpu"):
        resident_decoder(a, "float32", "cpu")


def test_streaming_an_encoder_with_a_dense_module_equals_fresh_loads(tmp_path, loads):
    folders = [save_encoder(tmp_path / name, seed, dense=True) for seed, name in enumerate("ab")]
    for folder in (*folders, folders[0]):
        encoder, fresh = resident_encoder(folder, "float32", "cpu"), SentenceTransformer(str(folder), device="cpu")
        assert_equal_modules(encoder, fresh)
        assert torch.equal(
            encoder.encode("a b c", convert_to_tensor=True), fresh.encode("a b c", convert_to_tensor=True)
        )
    assert loads == ["a"]


def test_an_encoder_keeps_its_pooling_prompts_and_similarity(tmp_path):
    prompts = {"query": "query: ", "document": "document: "}
    folder = save_encoder(tmp_path / "a", 1, pooling="cls", similarity="dot", prompts=prompts)
    encoder = resident_encoder(folder, "float32", "cpu")
    assert (encoder[1].pooling_mode, encoder.similarity_fn_name) == ("cls", "dot")
    assert encoder.prompts == prompts


def test_a_bare_transformer_gets_mean_pooling_and_a_warning(tmp_path, caplog, loads):
    folders = [save_encoder(tmp_path / name, seed) for seed, name in enumerate("ab")]
    for folder in folders:
        (folder / "modules.json").unlink()
    caplog.set_level(logging.WARNING)
    for folder in folders:
        encoder = resident_encoder(folder, "float32", "cpu")
        assert encoder[1].pooling_mode == "mean"
        assert_equal_modules(encoder, SentenceTransformer(str(folder), device="cpu"))
    assert "there is no modules.json, so mean pooling of the token vectors is assumed" in caplog.text
    assert loads == ["a"]


@pytest.mark.parametrize(
    ("kind", "save", "auto"),
    [
        ("reranker", save_reranker, AutoModelForSequenceClassification),
        # One embedding table in the file is four in the module.
        ("encoder-decoder", save_t5, AutoModelForSeq2SeqLM),
    ],
)
def test_streaming_other_kinds_equals_fresh_loads(tmp_path, loads, kind, save, auto):
    folders = [tmp_path / name for name in "ab"]
    for seed, folder in enumerate(folders):
        save(folder, seed)
    first = resident_model(kind, folders[0], "float32", "cpu")
    for folder in (folders[1], folders[0]):
        found = resident_model(kind, folder, "float32", "cpu")
        assert found.model is first.model
        assert_equal_modules(found.model, auto.from_pretrained(folder))
    assert found.tokenizer.sep_token == "[SEP]"
    assert loads == ["a"]


def test_an_encoder_decoder_with_a_head_of_its_own_is_streamed_too(tmp_path, loads):
    # As Flan-T5: its files hold a head that is not the embedding table, and transformers unties the two.
    for seed, name in enumerate("ab"):
        save_t5(tmp_path / name, seed)
        tensors = load_file(tmp_path / name / "model.safetensors")
        tensors["lm_head.weight"] = tensors["shared.weight"] + 1
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        model = resident_model("encoder-decoder", tmp_path / name, "float32", "cpu").model
        assert torch.equal(model.lm_head.weight, model.shared.weight + 1)
        assert_equal_modules(model, AutoModelForSeq2SeqLM.from_pretrained(tmp_path / name))
    assert loads == ["a"]


def test_a_decoder_makes_room_for_an_encoder_on_the_same_device(tmp_path, loads):
    resident_decoder(save_decoder(tmp_path / "decoder", 1), "float32", "cpu")
    resident_encoder(save_encoder(tmp_path / "encoder", 1), "float32", "cpu")
    assert list(tasks.resident._slots) == ["cpu"]
    assert loads == ["decoder", "encoder"]


def test_a_forgotten_module_is_loaded_afresh(tmp_path, loads):
    a = save_decoder(tmp_path / "a", 1)
    with torch.no_grad():
        resident_decoder(a, "float32", "cpu").model.model.norm.weight.zero_()
    forget("cpu")
    assert_is_fresh(resident_decoder(a, "float32", "cpu"), a)
    assert loads == ["a", "a"]


@pytest.fixture
def adapter(tmp_path):
    """LoRA of rank 1 that adds 2 to every number of one matrix of a tiny decoder or encoder."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 2}))

    def write(module, columns=16):
        factors = {"lora_A": torch.ones(1, columns), "lora_B": torch.ones(16, 1)}
        tensors = {f"base_model.model.{module}.{name}.weight": factor for name, factor in factors.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return write


def test_an_adapter_is_streamed_over_its_base_and_away_again(tmp_path, loads, adapter):
    a, b = save_decoder(tmp_path / "a", 1), save_decoder(tmp_path / "b", 2)
    folder = adapter("model.layers.0.self_attn.q_proj")
    first = resident_decoder(a, "float32", "cpu", folder)
    expected = AutoModelForCausalLM.from_pretrained(a)
    with torch.no_grad():
        expected.model.layers[0].self_attn.q_proj.weight += 2
    assert_equal_modules(first.model, expected)
    assert resident_decoder(a, "float32", "cpu", folder).model is first.model
    for plain in (a, b):
        assert_is_fresh(resident_decoder(plain, "float32", "cpu"), plain)
    assert_equal_modules(resident_decoder(a, "float32", "cpu", folder).model, expected)
    assert loads == ["a"]


def test_an_adapter_of_an_embedder_is_added_to_its_transformer(tmp_path, adapter):
    folder = save_encoder(tmp_path / "a", 1, dense=True)
    module = "encoder.layer.0.attention.self.query"
    encoder = resident_encoder(folder, "float32", "cpu", adapter(module))
    fresh = SentenceTransformer(str(folder), device="cpu")
    name = next(each for each in fresh.state_dict() if each.endswith(f"{module}.weight"))
    for each, tensor in fresh.state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[each], tensor + 2 if each == name else tensor)


def test_an_adapter_that_cannot_be_added_leaves_no_module_behind(tmp_path, monkeypatch, adapter):
    folder = save_decoder(tmp_path / "a", 1)
    with pytest.raises(CheckpointError, match="changes a tensor of shape"):
        resident_decoder(folder, "float32", "cpu", adapter("model.layers.0.self_attn.q_proj", columns=3))
    assert not tasks.resident._slots
    monkeypatch.setattr(tasks.resident, "_prove", lambda *_: False)
    with pytest.raises(CheckpointError, match=r"transformers changes tensors of this architecture.*merge_and_unload"):
        resident_decoder(folder, "float32", "cpu", adapter("model.layers.0.self_attn.q_proj"))
    assert not tasks.resident._slots


def test_a_writable_module_is_found_by_no_later_call_and_frees_its_memory(tmp_path, loads):
    a = save_decoder(tmp_path / "a", 1)
    resident_decoder(a, "float32", "cpu")
    with writable_module("decoder", a, "float32", "cpu") as module:
        module.places["model.norm.weight"].zero_()
        assert not module.model.model.model.norm.weight.any()
        assert_is_fresh(resident_decoder(a, "float32", "cpu"), a)
    assert not module.places
    assert all(tensor.is_meta for tensor in module.model.model.parameters())
    assert loads == ["a", "a"]


def test_a_module_that_does_not_hold_its_files_tensors_as_they_are_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.resident, "_prove", lambda *_: False)
    with (
        pytest.raises(CheckpointError, match=r"a: transformers changes tensors of this architecture.*save them again"),
        writable_module("decoder", save_decoder(tmp_path / "a", 1), "float32", "cpu"),
    ):
        pass
    assert not tasks.resident._slots


def test_integers_that_modules_no_longer_have_do_not_keep_a_checkpoint_from_being_streamed(tmp_path, loads):
    # As transformers 4.30 and older saved a Bert.
    folders = [save_encoder(tmp_path / name, seed) for seed, name in enumerate("ab")]
    for folder in folders:
        tensors = load_file(folder / "model.safetensors")
        tensors["embeddings.position_ids"] = torch.arange(16)[None]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for folder in (*folders, folders[0]):
        encoder, fresh = resident_encoder(folder, "float32", "cpu"), SentenceTransformer(str(folder), device="cpu")
        assert_equal_modules(encoder, fresh)
    assert loads == ["a"]
