from clipadapt.data.seeds import mix


def test_mixed_seeds_are_all_different():
    assert len({mix(seed, epoch, rank) for seed in range(9) for epoch in range(9) for rank in range(9)}) == 729
    assert mix(1, 2) != mix(2, 1)
