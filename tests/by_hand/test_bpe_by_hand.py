"""The slow twin, on examples that can be checked in the head."""

from glassgpt.by_hand import bpe

A, B = ord("a"), ord("b")


def test_the_most_frequent_pair_gets_the_first_id():
    assert bpe.train(["abab abab abcb"], 1) == [(A, B)]


def test_of_equally_frequent_pairs_the_smallest_ids_come_first():
    assert bpe.train(["ba"], 1) == [(B, A)]
    assert bpe.train(["bcab"], 1) == [(A, B)]
    assert bpe.train(["bcab"], 3) == [(A, B), (B, ord("c")), (257, 256)]


def test_a_run_is_merged_from_left_to_right():
    assert bpe.merge([A, A, A, A, A], (A, A), 256) == [256, 256, A]


def test_training_stops_when_every_piece_is_one_token():
    assert bpe.train(["ab ab"], 99) == [(A, B), (ord(" "), 256)]


def test_no_merge_crosses_a_cut():
    assert bpe.encode("a1", [(A, ord("1"))]) == [A, ord("1")]


def test_encoding_merges_what_was_learnt_first():
    merges = [(B, ord("c")), (A, B)]
    assert bpe.encode("abc", merges) == [A, 256]


def test_decoding_opens_merges_down_to_bytes():
    merges = bpe.train(["wenn ist das Nunstück git und Slotermeyer"], 17)
    assert bpe.decode(bpe.encode("Nunstück 🌍", merges), merges) == "Nunstück 🌍"
