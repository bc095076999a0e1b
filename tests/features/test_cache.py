import json
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from clipadapt.errors import UserError
from clipadapt.features import cache as module
from clipadapt.features.cache import HEADER, KEY, Store

FACTS = {"backbone": "abc", "cut": "block.3", "size": [32, 32]}
AMPLE = 10**9
MENDED = r"engine\.cache=DIR.*engine\.cache=null"


def keys(*numbers):
    return [number.to_bytes(16, "big") for number in numbers]


def rows(*numbers):
    """Rows told from their numbers, as those of an image are from its key."""
    return torch.tensor(numbers).view(-1, 1, 1) * 100.0 + torch.arange(12.0).view(3, 4)


def filled(folder, *shards, limit=AMPLE):
    entry = Store(folder, limit).entry(FACTS)
    for numbers in shards:
        entry.write(keys(*numbers), rows(*numbers))
    return entry


def shards(folder):
    return sorted(Path(folder).rglob("*.safetensors"))


def taken(folder):
    """Bytes of all files of the entries at one moment: that when all are listed and none is looked at yet."""
    total = 0
    for path in [path for path in folder.glob("activations-*/*") if path.name != "key.json"]:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@contextmanager
def silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def flip(path, part):
    """Damage the last byte of this part of a file."""
    content = bytearray(path.read_bytes())
    content[content.index(part) + len(part) - 1] ^= 1
    path.write_bytes(content)


def assert_damaged(entry, numbers, reason):
    """All these numbers are missing, with one warning, and found again when they are written again."""
    with pytest.warns(UserWarning) as told:
        assert entry.find(keys(*numbers)).missing == list(range(len(numbers)))
    (warning,) = told
    assert reason in str(warning.message) and "computed again" in str(warning.message)
    assert not shards(entry.folder)
    entry.write(keys(*numbers), rows(*numbers))
    with silence():
        assert torch.equal(entry.find(keys(*numbers)).gather(range(len(numbers))), rows(*numbers))


def test_what_is_written_is_found_by_key_in_the_order_asked(tmp_path):
    filled(tmp_path / "deep" / "store", [1, 2, 3], [4, 5])
    found = filled(tmp_path / "deep" / "store").find(keys(5, 9, 1, 3, 5, 8))
    assert found.missing == [1, 5]
    assert torch.equal(found.gather([0, 2, 3, 4]), rows(5, 1, 3, 5))
    assert torch.equal(found.gather([3, 0, 3]), rows(3, 5, 3))
    with pytest.raises(KeyError):
        found.gather([0, 1])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_values_of_any_format_and_shape_are_the_same_bits(data):
    dtype = data.draw(st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.bool]))
    names = data.draw(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=6, unique=True))
    shape = [len(names), *data.draw(st.lists(st.integers(1, 4), max_size=3))]
    values = torch.randint(0, 2, [*shape, 2]) if dtype == torch.bool else torch.randint(-(2**40), 2**40, [*shape, 2])
    values = values.to(dtype)[..., 0]  # not contiguous
    order = data.draw(st.permutations(range(len(names))))
    with tempfile.TemporaryDirectory() as folder:
        entry = Store(Path(folder), AMPLE).entry({})
        entry.write(names, values)
        got = entry.find([names[place] for place in order]).gather(range(len(names)))
    assert got.dtype == dtype and torch.equal(got, values[order])


def test_what_has_no_number_is_the_same_bits(tmp_path):
    values = torch.tensor([[0x7FC1, 0xFF81 - 2**16, 0x7F80, -(2**15)]], dtype=torch.int16).view(torch.bfloat16)
    entry = filled(tmp_path)
    entry.write(keys(1), values.requires_grad_())
    found = entry.find(keys(1)).gather([0])
    assert torch.equal(found.view(torch.int16), values.detach().view(torch.int16)) and not found.requires_grad


def test_shelves_are_apart_and_say_what_they_are_for(tmp_path):
    first = filled(tmp_path, [1])
    second = Store(tmp_path, AMPLE).entry({**FACTS, "cut": "features"})
    assert second.find(keys(1)).missing == [0]
    assert json.loads((second.folder / "key.json").read_text())["cut"] == "features"
    assert Store(tmp_path, AMPLE).entry(dict(reversed(FACTS.items()))).folder == first.folder


def test_an_empty_shelf_has_nothing(tmp_path):
    assert filled(tmp_path).find(keys(1, 2)).missing == [0, 1]
    assert filled(tmp_path, [1]).find([]).missing == []


def test_of_keys_written_twice_the_first_copy_counts(tmp_path):
    entry = filled(tmp_path, [1, 2], [2, 1], [2, 3])
    assert torch.equal(entry.find(keys(1, 2, 3)).gather([0, 1, 2]), rows(1, 2, 3))
    flip(shards(tmp_path)[2], rows(2).numpy().tobytes())
    with silence():
        assert torch.equal(entry.find(keys(2)).gather([0]), rows(2))


def test_a_damaged_row_is_noticed_when_it_is_asked_for(tmp_path):
    entry = filled(tmp_path, [1, 2, 3])
    flip(*shards(tmp_path), rows(2).numpy().tobytes())
    with silence():
        assert torch.equal(entry.find(keys(3, 1)).gather([0, 1]), rows(3, 1))
    assert_damaged(entry, [1, 2, 3], "checksum")


def test_the_second_copy_of_a_damaged_row_counts(tmp_path):
    entry = filled(tmp_path, [1, 2], [1, 2])
    flip(shards(tmp_path)[0], rows(2).numpy().tobytes())
    with pytest.warns(UserWarning, match="checksum"):
        found = entry.find(keys(1, 2))
    assert torch.equal(found.gather([0, 1]), rows(1, 2)) and len(shards(tmp_path)) == 1


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_is_noticed(tmp_path, length):
    entry = filled(tmp_path, [1, 2])
    (path,) = shards(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert_damaged(entry, [1, 2], path.name)


def test_a_file_that_is_none_is_noticed(tmp_path):
    entry = filled(tmp_path)
    (entry.folder / "other.safetensors").write_text("no tensors at all\n" * 99)
    assert_damaged(entry, [1, 2], "other.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda shard: shard.pop("sums"),
        lambda shard: shard.update(values=shard["values"][:1].clone()),
        lambda shard: shard.update(values=torch.tensor(1.0)),
        lambda shard: shard.update(sums=shard["sums"][:1].clone()),
        lambda shard: shard.update(sums=shard["sums"].to(torch.int32)),
        lambda shard: shard.update(keys=shard["keys"][:, :15].clone()),
        lambda shard: shard.update(keys=shard["keys"].to(torch.int8)),
        lambda shard: shard.update(keys=torch.tensor(1, dtype=torch.uint8)),
    ],
)
def test_tensors_that_do_not_fit_are_noticed(tmp_path, change):
    entry = filled(tmp_path, [1, 2])
    (path,) = shards(tmp_path)
    shard = {name: value.clone() for name, value in load_file(path).items()}
    change(shard)
    save_file(shard, path)
    assert_damaged(entry, [1, 2], path.name)


@pytest.mark.parametrize("error", [None, RuntimeError("unable to open file")])
def test_a_shard_that_another_process_removes_meanwhile_is_missing(tmp_path, monkeypatch, error):
    entry, opened = filled(tmp_path, [1], [2]), module.safe_open
    gone = shards(tmp_path)[0]

    def removed(path, framework):
        if path == gone:
            path.unlink()
            if error:
                raise error
        return opened(path, framework)

    monkeypatch.setattr(module, "safe_open", removed)
    with silence():
        assert len(entry.find(keys(1, 2)).missing) == 1


def test_what_was_found_is_readable_when_its_shard_is_removed(tmp_path):
    entry = filled(tmp_path, range(50))
    found = entry.find(keys(*range(50)))
    shards(tmp_path)[0].unlink()
    assert entry.find(keys(7)).missing == [0]
    assert torch.equal(found.gather(range(50)), rows(*range(50)))


def test_only_what_is_asked_for_is_read_into_memory(tmp_path):
    def megabytes(kind):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))

    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux")
    entry, numbers = filled(tmp_path), range(64)
    entry.write(keys(*numbers), torch.ones(64, 2**20))
    before = [megabytes(kind) for kind in ("RssAnon", "RssFile")]
    few = entry.find(keys(5, 40))
    assert megabytes("RssFile") - before[1] < 40 and megabytes("RssAnon") - before[0] < 4
    all_ = entry.find(keys(*numbers))
    assert megabytes("RssAnon") - before[0] < 4
    assert not few.missing + all_.missing


def test_what_was_used_least_recently_makes_room(tmp_path):
    entry = filled(tmp_path, *[[number] for number in range(4)])
    size = shards(tmp_path)[0].stat().st_size
    where = {load_file(path)["keys"][0, -1].item(): path for path in shards(tmp_path)}
    for number, path in where.items():
        os.utime(path, (1000 + number, 1000 + number))
    entry.find(keys(0))
    other = Store(tmp_path, 3 * size + HEADER).entry({"another": "shelf"})
    other.write(keys(9), rows(9))
    assert entry.find(keys(0, 1, 2, 3)).missing == [1, 2]
    other.write(keys(10), rows(10))
    assert entry.find(keys(0, 3)).missing == []


def test_after_the_clock_was_set_back_what_is_written_stays(tmp_path):
    entry = filled(tmp_path, *[[number] for number in range(4)])
    size = shards(tmp_path)[0].stat().st_size
    for path in shards(tmp_path):
        os.utime(path, (2**33, 2**33))  # in the year 2242
    for number in range(4, 7):
        Store(tmp_path, 4 * size + HEADER).entry(FACTS).write(keys(number), rows(number))
    assert not entry.find(keys(4, 5, 6)).missing


def test_the_limit_holds_at_every_moment(tmp_path, monkeypatch):
    limit, seen, put = 5_000, [], os.replace

    def replace(*paths):
        seen.append(taken(tmp_path))
        put(*paths)
        seen.append(taken(tmp_path))

    monkeypatch.setattr(os, "replace", replace)
    store = Store(tmp_path, limit)
    entries = [store.entry({"number": number}) for number in range(3)]
    for count in range(60):
        numbers = range(count, count + 1 + count % 20)
        entries[count % 3].write(keys(*numbers), rows(*numbers))
        assert not entries[count % 3].find(keys(*numbers)).missing
    assert len(seen) == 120 and limit / 2 < max(seen) <= limit


def test_nothing_else_makes_room(tmp_path):
    mine = tmp_path / "weights" / "model.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(b"mine" * 1000)
    entry = filled(tmp_path, [1], [2], limit=1200)
    assert mine.exists() and len(shards(entry.folder)) == 1


def test_a_shard_above_the_limit_is_refused(tmp_path):
    entry = filled(tmp_path, [1], limit=2000)
    with pytest.raises(ValueError, match="limit of 2000"):
        entry.write(keys(*range(50)), rows(*range(50)))
    assert not entry.find(keys(1)).missing


def test_the_limit_itself_is_within_the_limit(tmp_path):
    size = KEY + rows(1).nbytes + torch.zeros(1, dtype=torch.long).nbytes + HEADER
    entry = filled(tmp_path, [1], limit=size)
    assert not entry.find(keys(1)).missing
    room = sum(path.stat().st_size for path in shards(tmp_path)) + size
    entry = filled(tmp_path, [2], limit=room)
    assert not entry.find(keys(1, 2)).missing


def test_a_check_leaves_nothing(tmp_path):
    Store(tmp_path, AMPLE).check()
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_what_a_killed_process_left_is_removed(tmp_path):
    entry = filled(tmp_path, [1])
    for name in ("abc.part", ".tmpAbC"):
        (entry.folder / name).write_bytes(b"half" * 1000)
    assert not entry.find(keys(1)).missing
    entry.write(keys(2), rows(2))
    assert {path.suffix for path in entry.folder.iterdir()} == {".safetensors", ".json"}


def test_as_many_keys_as_rows(tmp_path):
    with pytest.raises(RuntimeError):
        filled(tmp_path).write(keys(1, 2), rows(1))


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_can_not_be_made_is_told(tmp_path, folder):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=MENDED):
        filled(tmp_path / folder)


def test_a_store_removed_meanwhile_is_made_again(tmp_path):
    entry = filled(tmp_path / "store", [1])
    (tmp_path / "store").rename(tmp_path / "away")
    assert entry.find(keys(1)).missing == [0]
    entry.write(keys(1), rows(1))
    assert entry.find(keys(1)).missing == []


def test_a_shelf_that_can_not_be_written_is_told(tmp_path):
    entry = filled(tmp_path / "store")
    (entry.folder / "key.json").unlink()
    entry.folder.rmdir()
    entry.folder.write_text("mine")
    with pytest.raises(UserError, match=MENDED):
        entry.write(keys(1), rows(1))


def test_a_full_disk_is_told_and_leaves_no_half_file(tmp_path):
    entry = filled(tmp_path, [1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(UserError, match=f"File too large.*{MENDED}"):
            entry.write(keys(2), torch.ones(1, 50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list(entry.folder.iterdir())) == 2
    assert entry.find(keys(1, 2)).missing == [1]


WRITERS, EACH, PER_SHARD = 4, 15, 10


def write_many(folders, first, ready):
    """Write shards, looking up before each what is there; the writers' keys overlap."""
    warnings.simplefilter("error")
    entries = [Store(folder, limit).entry(FACTS) for folder, limit in folders.items()]
    ready.wait(60)
    for number in range(EACH):
        wanted = [first + number * PER_SHARD // 2 + row for row in range(PER_SHARD)]
        for entry in entries:
            found = entry.find(keys(*wanted))
            assert_right(found, wanted)
            entry.write(keys(*wanted), rows(*wanted))


def assert_right(found, wanted):
    had = [position for position in range(len(wanted)) if position not in found.missing]
    assert not had or torch.equal(found.gather(had), rows(*[wanted[position] for position in had]))


def test_processes_that_write_at_once(tmp_path):
    ample, tight = folders = {tmp_path / "ample": AMPLE, tmp_path / "tight": 9_000}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ready, seen = context.Barrier(WRITERS), []
    writers = [context.Process(target=write_many, args=(folders, 20 * i, ready)) for i in range(WRITERS)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.append(taken(tight))
        time.sleep(0.001)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert 0 < max(seen) <= folders[tight]
    assert len(shards(ample)) == WRITERS * EACH and 1 < len(shards(tight)) < 20
    wanted = range(20 * (WRITERS - 1) + (EACH + 1) * PER_SHARD // 2)
    found = [Store(folder, limit).entry(FACTS).find(keys(*wanted)) for folder, limit in folders.items()]
    for each in found:
        assert_right(each, wanted)
    assert not found[0].missing and len(found[1].missing) < len(wanted)
