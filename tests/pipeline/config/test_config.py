"""The model: defaults, ranges, what follows from what. Messages are test_loading's."""

import pytest
from pydantic import ValidationError

from pipeline.config.model import SECTIONS, Config, FileGuest, SyntheticGuest
from pipeline.guests.workload import MIN_WORKING_PAGES, Workload, lay_out

SYNTHETIC = {"kind": "synthetic"}


def config(**keys: object) -> Config:
    return Config.model_validate({"guest": SYNTHETIC, **keys})


def parameters(**keys: object) -> Config:
    return config(parameters={name.replace("_", "-"): value for name, value in keys.items()})


def test_defaults_are_the_documented_ones() -> None:
    """A default that drifts away from QEMU's."""
    made = config()
    assert isinstance(made.guest, SyntheticGuest)
    assert made.guest.memory == 512 << 20
    assert (made.guest.workload.working_set, made.guest.workload.dirty_rate) == (64 << 20, 40 << 20)
    assert (made.codec, made.tracker, made.verify) == ("zlib", "auto", "full")
    assert made.batch_pages == 256
    assert made.parameters.model_dump() == {
        "compress_level": 1,
        "compress_threads": 8,
        "decompress_threads": 2,
        "max_bandwidth": 0,
        "downtime_limit": 300,
        "xbzrle_cache_size": 64 << 20,
    }
    assert made.commit_timeout == 30
    assert made.autostart
    assert made.destination.path is None
    assert made.uri is None


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("compress-level", 0, 9),
        ("compress-threads", 1, 255),
        ("decompress-threads", 1, 255),
        ("downtime-limit", 0, 2**31 - 1),
    ],
)
def test_parameter_ranges(key: str, low: int, high: int) -> None:
    """A bound that is off by one."""
    for value in (low, high):
        config(parameters={key: value})
    for value in (low - 1, high + 1):
        with pytest.raises(ValidationError):
            config(parameters={key: value})


@pytest.mark.parametrize(("pages", "good"), [(0, False), (1, True), (1024, True), (1025, False)])
def test_batch_range(pages: int, good: bool) -> None:
    """A batch that the protocol's limit refuses later."""
    if good:
        assert config(**{"batch-pages": pages}).batch_pages == pages
    else:
        with pytest.raises(ValidationError):
            config(**{"batch-pages": pages})


@pytest.mark.parametrize(
    ("asked", "taken"), [(-1, 0), (0, 0), (1, 10), (9, 10), (10, 10), (11, 11)]
)
def test_bandwidth_rules(asked: int, taken: int) -> None:
    """A tenth of a tiny limit is zero, which would be no limit at all."""
    assert parameters(max_bandwidth=asked).parameters.max_bandwidth == taken


def test_cache_is_rounded_to_a_power_of_two() -> None:
    """A cache whose slots are no power of two: the slot of a page would be wrong."""
    assert parameters(xbzrle_cache_size="5MiB").parameters.xbzrle_cache_size == 4 << 20
    assert parameters(xbzrle_cache_size=4096).parameters.xbzrle_cache_size == 4096


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (4095, "Parameter 'cache size' expects is smaller than page size"),
        (1 << 64, "Parameter 'cache size' expects exceeding address space"),
        ("1GiB", "Parameter 'cache size' expects exceeds guest ram size"),
    ],
)
def test_cache_refusals(size: object, words: str) -> None:
    """A cache larger than the guest, or smaller than a page, taken silently."""
    with pytest.raises(ValidationError, match=words):
        parameters(xbzrle_cache_size=size)


def test_defaults_are_cut_to_a_small_guest() -> None:
    """A small guest refused for a default that nobody asked for."""
    made = config(guest={"kind": "synthetic", "memory": "12MiB"})
    assert made.parameters.xbzrle_cache_size == 8 << 20
    assert isinstance(made.guest, SyntheticGuest)
    assert made.guest.workload.working_set == (12 << 20) - 6 * 4096


@pytest.mark.parametrize("pages", [8, 9, 512, 513, 514, 1025, 1026, 131_072])
def test_what_is_taken_fits_into_the_guest(pages: int) -> None:
    """A working set that the guest itself refuses, when it is too late for exit code 2."""
    guest = config(guest={"kind": "synthetic", "memory": pages * 4096}).guest
    assert isinstance(guest, SyntheticGuest)
    for working_set in (MIN_WORKING_PAGES * 4096, guest.workload.working_set):
        workload = Workload("uniform", working_set, 0, 16, "mixed", 1)
        assert lay_out(workload, guest.memory).working_pages * 4096 == working_set


def test_what_was_asked_for_is_not_cut() -> None:
    """A working set that does not fit, cut without a word."""
    with pytest.raises(ValidationError, match="at most 1044480 bytes in this guest's memory"):
        config(guest={"kind": "synthetic", "memory": "1MiB", "workload": {"working-set": "2MiB"}})


@pytest.mark.parametrize("memory", [0, 4096, 32_769, "16TiB"])
def test_memory_is_whole_pages(memory: object) -> None:
    """A guest whose last page is not whole, or that a page index cannot name."""
    with pytest.raises(ValidationError):
        config(guest={"kind": "synthetic", "memory": memory})


def test_compress_off_is_codec_none() -> None:
    """The capability ignored: pages compressed although it is off."""
    assert config(codec="zstd").effective_codec == "zstd"
    assert config(codec="zstd", capabilities={"compress": False}).effective_codec == "none"


def test_file_guest() -> None:
    """A file guest read as a synthetic one."""
    made = config(guest={"kind": "file", "path": "/dev/shm/a", "pid": 17})
    assert isinstance(made.guest, FileGuest)
    assert (str(made.guest.path), made.guest.pid) == ("/dev/shm/a", 17)


def test_values_that_state_todays_behaviour_are_taken() -> None:
    """A file written for a later version, with everything new switched off, refused."""
    off = ("xbzrle", "auto-converge", "zero-blocks", "rdma-pin-all", "pause-before-switchover")
    made = config(
        capabilities=dict.fromkeys(off, False),
        disks=[],
        security={"insecure": False},
        guest={"kind": "synthetic", "on-completed": "keep"},
    )
    assert made.disks == ()


def test_frozen() -> None:
    """A configuration changed behind the back of a running migration."""
    with pytest.raises(ValidationError, match="frozen"):
        config().codec = "lz4"


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_refuses_unknown_keys(name: str) -> None:
    """A section that takes and ignores a misspelt key."""
    assert SECTIONS[name].model_config.get("extra") == "forbid"


def test_the_dump_is_the_same_configuration() -> None:
    """`check` printing something that loads as another configuration."""
    made = config(
        parameters={"max-bandwidth": 12345}, guest={"kind": "synthetic", "memory": "12MiB"}
    )
    again = Config.model_validate(made.model_dump(mode="json", by_alias=True))
    assert again.model_dump() == made.model_dump()


def test_schema_has_dashes_ranges_and_no_unknown_keys() -> None:
    """A schema by which an editor accepts what the program refuses."""
    schema = Config.model_json_schema()
    assert "batch-pages" in schema["properties"]
    assert schema["additionalProperties"] is False
    level = schema["$defs"]["Parameters"]["properties"]["compress-level"]
    assert (level["minimum"], level["maximum"]) == (0, 9)
