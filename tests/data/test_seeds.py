from clipadapt.data.seeds import hash_seed


def test_mixed_seeds_are_all_different():
    assert len({hash_seed(seed, epoch, rank) for seed in range(9) for epoch in range(9) for rank in range(9)}) == 729
    assert hash_seed(1, 2) != hash_seed(2, 1)
