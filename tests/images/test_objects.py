"""Slides in object stores and on web servers: what is listed, what is read, and what is said where neither works."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from select import select

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchcls.errors import SlidesError
from batchcls.images.decoders.encoded import Encoded, ReadOptions
from batchcls.images.decoders.read_ahead import ReadAhead
from batchcls.images.servers.group_buffer import GROUP_BYTES
from batchcls.images.servers.name_queue import NameQueue, packed_names, packed_numbers
from batchcls.images.sources import open_readers, open_source, read_slide, slide_exists
from batchcls.images.sources.base import SourceOptions
from batchcls.records import Failure, Slide
from batchcls.storage.object_credentials import provider_environment
from batchcls.storage.transient_errors import is_transient
from batchcls.storage.urls import bucket_and_key
from tests.commandline import PATIENCE_S
from tests.conftest import draw
from tests.object_servers import (
    BUCKET,
    DENIED,
    FAULTS,
    Answer,
    Fault,
    FaultProxy,
    fill_bucket,
    moto_server,
    s3_client,
    s3_named,
    seeded_faults,
)

LARGEST = 1 << 30
IMAGES = {f"many/{number:03d}.jpg": bytes([number]) * (number + 1) for number in range(50)}
ODD = {
    "odd/b/ü x%20y#?+&=.jpg": b"odd",
    "odd/a/~!$'()*.PNG": b"punctuation",
    "odd/.hidden.jpg": b"hidden",
    "odd/.folder/1.jpg": b"hidden too",
    "odd/readme.txt": b"no image",
    "odd/none": b"no ending",
    "odd.jpg": b"beside the prefix",
    "large.tif": bytes(range(256)) * 12_000,
}
SLASHES = {"with//two.jpg": b"two"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto_server(tmp_path_factory.mktemp("s3") / "log.txt") as endpoint, s3_named(endpoint):
        fill_bucket(endpoint, {**IMAGES, **ODD})
        fill_bucket(endpoint, SLASHES, "slashes")
        yield endpoint


def listed(*urls: str) -> list[Slide]:
    with closing(open_source(urls)) as source:
        return list(source)


def refusal(*urls: str, message: str) -> str:
    """The line with which listing ends; `Source.roots` says the same before anything is listed."""
    with closing(open_source(urls, SourceOptions(at_once=False))) as source:
        with pytest.raises(SlidesError, match=message):
            assert source.roots
        with pytest.raises(SlidesError, match=message) as raised:
            list(source)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_images_come_in_the_order_of_their_names_with_size_and_time(endpoint: str) -> None:
    slides = listed(f"s3://{BUCKET}/many/")

    assert [(slide.root, slide.path) for slide in slides] == [
        (f"s3://{BUCKET}/many", key.removeprefix("many/")) for key in IMAGES
    ]
    assert [slide.size_bytes for slide in slides] == [len(content) for content in IMAGES.values()]
    assert all(slide.modified_ns and abs(slide.modified_ns / 1e9 - time.time()) < PATIENCE_S for slide in slides)


@pytest.mark.usefixtures("endpoint")
def test_what_is_hidden_or_no_image_is_passed_over_and_counted() -> None:
    with closing(open_source([f"s3://{BUCKET}/odd"])) as source:
        assert sorted(slide.path for slide in source) == ["a/~!$'()*.PNG", "b/ü x%20y#?+&=.jpg"]
        assert source.skipped == Counter({"hidden": 2, "not an image": 2})
        assert source.roots == (f"s3://{BUCKET}/odd",)


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("key", ["odd/b/ü x%20y#?+&=.jpg", "odd/.hidden.jpg", "odd/none", "odd.jpg"])
def test_an_object_that_is_named_is_listed_whatever_it_is_called(key: str) -> None:
    (slide,) = listed(f"s3://{BUCKET}/{key}")

    assert slide.root == f"s3://{BUCKET}/{key}".rpartition("/")[0]
    assert read_slide(slide, LARGEST) == ODD[key]


@pytest.mark.usefixtures("endpoint")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["", "/", "/odd", "/odd/", "/odd/b", "/many", "/odd.jpg", "/many/007.jpg"]), min_size=1)
)
def test_an_object_comes_once_however_many_urls_lead_to_it(places: Sequence[str]) -> None:
    with closing(open_source([f"S3://{BUCKET}{place}" for place in places])) as source:
        slides = list(source)
        assert source.count == len(slides)
        assert {slide.root for slide in slides} <= set(source.roots)

    def is_wanted(key: str) -> bool:
        visible = "/." not in key and key.lower().endswith((".jpg", ".png", ".tif"))
        return any(
            f"/{key}" == place or (visible and f"/{key}".startswith(place.rstrip("/") + "/")) for place in places
        )

    wanted = sorted(f"s3://{BUCKET}/{key}" for key in {**IMAGES, **ODD} if is_wanted(key))
    assert sorted(slide.file for slide in slides) == wanted


def test_a_listing_goes_on_after_pages_that_fail(endpoint: str) -> None:
    def choose(method: str, path: str, number: int) -> Fault:
        return FAULTS[number - 1] if 1 <= number <= len(FAULTS) else None

    with FaultProxy(endpoint, choose) as proxy, s3_named(proxy.url):
        assert [slide.path for slide in listed(f"s3://{BUCKET}/many/")] == [key.removeprefix("many/") for key in IMAGES]
    assert proxy.faults == list(FAULTS)


def test_reading_is_as_of_a_file_across_faults(endpoint: str) -> None:
    content = ODD["large.tif"]
    with FaultProxy(endpoint, seeded_faults(0.4)) as proxy, s3_named(proxy.url), closing(open_readers()) as readers:
        reader = readers.reader(PATIENCE_S)
        opened = reader.open(Slide(f"s3://{BUCKET}", "large.tif"))
        for offset in (0, 2_000_000, 1_000_000, len(content) - 5, 0):
            assert opened.read(offset, 1_200_000) == content[offset : offset + 1_200_000]
        reader.close()
    assert proxy.faults


def test_an_object_that_is_changed_while_it_is_read_is_no_mixture(endpoint: str) -> None:
    fill_bucket(endpoint, {"large.tif": ODD["large.tif"]}, "changing")
    with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
        opened = reader.open(Slide("s3://changing", "large.tif"))
        fill_bucket(endpoint, {"large.tif": bytes(len(ODD["large.tif"]))}, "changing")
        with pytest.raises(OSError, match="it was changed while it was read"):
            opened.read(2_900_000, 1000)
        assert reader.open(Slide("s3://changing", "large.tif")).read(2_900_000, 1000) == bytes(1000)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("cut", "ended early|Remote I/O"), (DENIED, "access is refused: 403 Forbidden .*AccessDenied")],
)
def test_what_never_comes_whole_is_an_error_that_may_pass(endpoint: str, fault: Fault, reason: str) -> None:
    slide = Slide(f"s3://{BUCKET}/many", "049.jpg")
    with FaultProxy(endpoint, lambda *_: fault) as proxy, s3_named(proxy.url):
        with pytest.raises(OSError, match=reason) as raised:
            read_slide(slide, LARGEST)
        assert slide_exists(slide)
    assert is_transient(f"unreadable: {raised.value.strerror}")
    assert read_slide(slide, LARGEST) == IMAGES["many/049.jpg"]


def test_a_group_holds_what_fits_and_leaves_the_rest(endpoint: str, tmp_path: Path) -> None:
    sound = draw(tmp_path / "0.jpg").read_bytes()
    padded = sound + bytes(900_000)
    fill_bucket(endpoint, {"0.jpg": sound, "1.jpg": padded, "2.jpg": padded, "3.jpg": bytes(GROUP_BYTES)}, "groups")
    slides = [*listed("s3://groups"), Slide("s3://groups", "gone.jpg")]

    with closing(open_readers()) as readers, closing(readers.group_reader(10**6)) as reader:
        reader.start([*slides, slides[1]], 1 << 20)
        assert select([reader], [], [], PATIENCE_S)[0]
        result = reader.result()
        assert {slide.path: bytes(data) for slide, data, _ in result.read} == {
            "0.jpg": sound, "1.jpg": padded, "2.jpg": padded
        }  # fmt: skip
        assert [slide.path for slide in result.alone] == ["3.jpg", "gone.jpg"]
        assert [slide.path for slide in result.again] == ["1.jpg"]
        assert reader.position() is None
        assert all(time_s >= 0 for time_s in reader.times_s)


def test_one_that_never_answers_holds_up_no_other_one(endpoint: str, tmp_path: Path) -> None:
    sound = draw(tmp_path / "0.jpg").read_bytes()
    fill_bucket(endpoint, {f"{number:02d}.jpg": sound for number in range(30)}, "hanging")

    def choose(method: str, path: str, number: int) -> Fault:
        return "hang" if path.endswith("13.jpg") else None

    with FaultProxy(endpoint, choose) as proxy, s3_named(proxy.url), closing(open_readers()) as readers:
        ahead = ReadAhead(listed("s3://hanging"), readers, ReadOptions(10**6, timeout_s=8.0))
        with closing(ahead):
            items = [item for item in ahead if item is not None]
    (failure,) = [item for item in items if isinstance(item, Failure)]
    assert (failure.slide.path, failure.text) == ("13.jpg", "unreadable: no answer in 8 s")
    assert len([item for item in items if isinstance(item, Encoded)]) == 29


@pytest.mark.usefixtures("endpoint")
def test_a_bucket_that_is_not_there_is_named() -> None:
    refusal("s3://nosuch/a", message="there is no bucket of 's3://nosuch/a' at .*AWS_ENDPOINT_URL")


@pytest.mark.usefixtures("endpoint")
def test_a_name_that_cannot_be_listed_is_told() -> None:
    refusal("s3://slashes", message="'s3://slashes' holds a name that cannot be listed: .*with//two.jpg")


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("key", ["a//b.jpg", "a/../b.jpg", "a/./b"])
def test_a_name_that_no_object_here_can_have_is_refused(key: str) -> None:
    refusal(f"s3://{BUCKET}/{key}", message=f"'s3://{BUCKET}/{key}' is no name that can be read: Could not parse path")
    assert not slide_exists(Slide(f"s3://{BUCKET}", key))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            Answer(403, b"<Error><Code>InvalidAccessKeyId</Code><Message>No such key</Message></Error>"),
            r"is refused: 403 Forbidden \(InvalidAccessKeyId: No such key\); set AWS_ACCESS_KEY_ID .*SKIP_SIGNATURE",
        ),
        (Answer(301, b"", (("x-amz-bucket-region", "eu-south-9"),)), "run: export AWS_REGION=eu-south-9"),
        (
            Answer(400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; "
                   b"expecting 'eu-west-7'</Message></Error>"),
            "export AWS_REGION=eu-west-7",
        ),
    ],
)  # fmt: skip
def test_a_store_that_refuses_says_what_to_set(endpoint: str, answer: Answer, message: str) -> None:
    with FaultProxy(endpoint, lambda *_: answer) as proxy, s3_named(proxy.url, AWS_SESSION_TOKEN="s3cr3t"):  # noqa: S106
        line = refusal(f"s3://{BUCKET}/many/", message=message)
    assert "s3cr3t" not in line


def test_a_server_that_is_not_there_is_named(endpoint: str) -> None:
    with s3_named("http://127.0.0.1:1"):
        refusal(f"s3://{BUCKET}", message="at http://127.0.0.1:1 cannot be used: its server refuses connections")
    with s3_named("http://example.com", AWS_ALLOW_HTTP=""):
        refusal(f"s3://{BUCKET}", message="'http://example.com' is not encrypted.*AWS_ALLOW_HTTP=true")


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket", "az://bucket"])
def test_without_credentials_it_ends_soon_and_says_which_to_set(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in provider_environment():  # of whoever runs the tests
        monkeypatch.delenv(name)
    with s3_named("http://127.0.0.1:1", HOME=str(tmp_path), AZURE_STORAGE_ACCOUNT_NAME="account"):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        since = time.monotonic()
        refusal(f"{url}/a.jpg", message=f"no credentials were found for '{url}'.*SKIP_SIGNATURE=true")
    assert time.monotonic() - since < PATIENCE_S / 10


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(
        SlidesError, match=r"needs obstore, which is not installed; run: pip install 'batchcls\[cloud\]'"
    ):
        open_source(["s3://bucket"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://user:s3cr3t@host/a.jpg", "'https://host/a.jpg' holds a user name"),
        ("https://host/a.jpg?X-Amz-Signature=s3cr3t", "'https://host/a.jpg' holds"),
        ("s3://s3cr3t@bucket/a", "'s3://bucket/a' holds a user name"),
        ("s3:///a.jpg", "names no bucket"),
        ("https://host/folder/", "web servers list none"),
        ("https://host", "web servers list none"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url: str, message: str) -> None:
    with pytest.raises(SlidesError, match=message) as raised:
        open_source([url])
    assert "s3cr3t" not in str(raised.value)


def test_an_image_of_a_web_server_is_read_under_the_name_in_its_url(tmp_path: Path) -> None:
    content = draw(tmp_path / "0.jpg").read_bytes()

    def choose(method: str, path: str, number: int) -> Fault:
        headers = (("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"),)
        return Answer(200, content, headers) if path == "/a%20b/%C3%BC%25.jpg" else Answer(404)

    with FaultProxy("http://127.0.0.1:1", choose) as web:
        (slide,) = listed(f"{web.url}/a%20b/%C3%BC%25.jpg")
        assert (slide.root, slide.path) == (f"{web.url}/a%20b", "%C3%BC%25.jpg")
        assert read_slide(slide, LARGEST) == content
        assert not slide_exists(Slide(web.url, "gone.jpg"))


def test_a_large_image_is_read_from_a_server_that_sends_it_whole_only() -> None:
    content = ODD["large.tif"]

    def choose(method: str, path: str, number: int) -> Fault:
        return Answer(200, content, (("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"),))

    with FaultProxy("http://127.0.0.1:1", choose) as web, closing(open_readers()) as readers:
        reader = readers.reader(PATIENCE_S)
        opened = reader.open(Slide(web.url, "large.tif"))
        assert [opened.read(at, 1000) for at in (3_000_000, 5)] == [content[3_000_000:3_001_000], content[5:1005]]
        reader.close()


NAMES = st.lists(st.binary(min_size=1, max_size=9).filter(lambda name: 0 not in name), min_size=1, max_size=20)
NUMBERS = st.integers(0, (1 << 63) - 1)


@given(NAMES, st.data())
def test_packed_slides_are_those_that_were_put_in(names: list[bytes], data: st.DataObject) -> None:
    sizes, times = (data.draw(st.lists(NUMBERS, min_size=len(names), max_size=len(names))) for _ in range(2))
    queue = NameQueue()
    queue.put("root", "", packed_names(names), packed_numbers(sizes, times))
    queue.put("root", "folder", packed_names(names))
    queue.end()

    texts = [name.decode(errors="surrogateescape") for name in names]
    assert [(slide.path, slide.size_bytes, slide.modified_ns) for slide in queue] == [
        *zip(texts, sizes, [moment or None for moment in times], strict=True),
        *((f"folder/{text}", None, None) for text in texts),
    ]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_a_key_of_a_store_is_what_stands_behind_the_bucket(key: str) -> None:
    assert bucket_and_key(f"S3://bucket/{key}") == ("s3://bucket", key)


def test_a_client_of_another_library_sees_the_same_bucket(endpoint: str) -> None:
    held = s3_client(endpoint).list_objects_v2(Bucket=BUCKET, Prefix="odd/")["Contents"]
    assert {item["Key"] for item in held} >= {
        slide.file.removeprefix(f"s3://{BUCKET}/") for slide in listed(f"s3://{BUCKET}/odd")
    }
