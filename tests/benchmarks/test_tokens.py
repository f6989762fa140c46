from pathlib import Path

from transformers import CLIPTokenizer

from benchmarks.mini_world.tokens import MAX_LENGTH, build_tokenizer, save_tokenizer, world_words


def test_every_word_of_the_world_is_one_token() -> None:
    tokenizer = build_tokenizer(world_words())
    split = [word for word in world_words() if len(tokenizer.tokenize(word)) != 1]
    assert split == []


def test_unknown_words_fall_back_to_pieces_and_not_to_the_unknown_token() -> None:
    tokenizer = build_tokenizer(world_words())
    ids = tokenizer("zebra at the beach", add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids).split() == ["zebra", "at", "the", "beach"]


def test_a_handle_can_be_added_and_survives_saving(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, world_words())
    before = len(tokenizer)
    assert len(tokenizer.tokenize("<cat>")) > 1
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again.add_tokens(["<cat>"]) == 1
    ids = again("a photo of <cat> on grass", padding="max_length", truncation=True).input_ids
    assert ids.count(before) == 1
    assert len(ids) == MAX_LENGTH == again.model_max_length
