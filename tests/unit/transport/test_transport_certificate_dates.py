import ssl
import subprocess
from calendar import timegm

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import make_certificates
from transport.certificate_dates import CertificateError, validities, validity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.mark.parametrize("name", ["ca", "server", "client"])
def test_the_dates_are_those_that_openssl_tells(folder, name):
    (found,) = validities((folder / f"{name}.pem").read_text())
    command = ["openssl", "x509", "-in", folder / f"{name}.pem", "-noout", "-dates"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    begin, end = (ssl.cert_time_to_seconds(line.split("=")[1]) for line in told.splitlines())
    assert (found.from_s, found.until_s) == (begin, end)


def test_every_certificate_of_a_file_is_read_in_its_order(folder):
    texts = [(folder / f"{name}.pem").read_text() for name in ("ca", "server")]
    assert validities("a comment\n".join(texts)) == [
        one for text in texts for one in validities(text)
    ]


@pytest.mark.parametrize(
    ("text", "when"),
    [
        (b"\x17\x0d491231235959Z", (2049, 12, 31, 23, 59, 59)),
        (b"\x17\x0d500101000000Z", (1950, 1, 1, 0, 0, 0)),
        (b"\x18\x0f20510101000000Z", (2051, 1, 1, 0, 0, 0)),
    ],
)
def test_years_of_two_digits_turn_at_1950(text, when):
    dates = b"\x30" + bytes([2 * len(text)]) + 2 * text
    signed = b"\x02\x01\x01\x30\x00\x30\x00" + dates
    signed = b"\x30" + bytes([len(signed)]) + signed
    assert validity(b"\x30" + bytes([len(signed)]) + signed).until_s == timegm(when)


@given(st.binary(max_size=64))
def test_any_bytes_raise_only_the_error_of_certificates(data):
    with pytest.raises(CertificateError):
        validity(data)


def test_a_certificate_that_is_cut_short_is_refused(folder):
    der = ssl.PEM_cert_to_DER_cert((folder / "ca.pem").read_text())
    for length in range(0, 120, 7):
        with pytest.raises(CertificateError):
            validity(der[:length])
    with pytest.raises(CertificateError, match="no certificate"):
        validities((folder / "ca.key").read_text())
