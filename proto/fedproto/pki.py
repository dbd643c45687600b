"""X.509 for the channel: a P-256 consortium root and 30-day certificates that name one party each.

Decides what a certificate says: a SPIFFE URI `spiffe://renmei/<consortium>/<member>` and nothing else
identifies its holder. Keys are made where they are used; only a signing request travels. What a party
may *do* stands in the charter, never in a certificate. Pure but for the entropy inside `cryptography`.
"""

import datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedproto.errors import LocalFault
from fedproto.ids import MemberId, is_member_id

CERTIFICATE_DAYS = 30
ROOT_DAYS = 3650
_SCHEME = "spiffe://renmei/"


def new_key_pem() -> bytes:
    """Return a fresh P-256 private key (PKCS#8 PEM)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    """Read a private key; raise RNM-KEY-0003 that names the file and never its content."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise LocalFault(
            "RNM-KEY-0003",
            what=f"key file {where} was not used",
            why="it is not a PEM private key on a NIST curve; it may be cut short or overwritten",
            mend="restore it from your own backup, or enrol again to replace it",
        )
    return key


def identity_uri(consortium: str, member: str) -> str:
    """Return the SPIFFE URI that names a party."""
    return f"{_SCHEME}{consortium}/{member}"


def parse_identity(uri: str, consortium: str) -> MemberId | None:
    """Return the member that a URI names in this consortium, or nothing."""
    prefix = f"{_SCHEME}{consortium}/"
    name = uri.removeprefix(prefix)
    return MemberId(name) if uri.startswith(prefix) and is_member_id(name) else None


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_root(key_pem: bytes, consortium: str, now: datetime.datetime) -> bytes:
    """Return the self-signed root certificate of a consortium (PEM)."""
    key = load_key(key_pem, "root.key")
    name = _name(f"{consortium} root")
    return _pem(
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def make_request(key_pem: bytes, member: MemberId) -> bytes:
    """Return a signing request (PEM): the only thing that enrolment takes from the premises."""
    key = load_key(key_pem, "tls.key")
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(member))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def issue(
    root_key_pem: bytes,
    root_pem: bytes,
    request_pem: bytes,
    *,
    consortium: str,
    member: MemberId,
    hosts: tuple[str, ...],
    now: datetime.datetime,
) -> bytes:
    """Issue a certificate for a request whose signature verifies; `hosts` only for servers.

    The name comes from the argument, which an administrator approved, never from the request.
    """
    request = x509.load_pem_x509_csr(request_pem)
    if not request.is_signature_valid:
        raise LocalFault(
            "RNM-SIG-0001",
            what=f"the signing request of {member} was refused",
            why="it is not signed by the key that it carries",
            mend=f"make a new request at {member} and compare its fingerprint out of band",
        )
    key = load_key(root_key_pem, "root.key")
    root = x509.load_pem_x509_certificate(root_pem)
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(identity_uri(consortium, member))
    ]
    names += [_host(host) for host in hosts]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if hosts:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    return _pem(
        x509.CertificateBuilder()
        .subject_name(_name(member))
        .issuer_name(root.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def check_term(certificate_pem: bytes, now: datetime.datetime, where: str) -> None:
    """Refuse an expired certificate before gRPC would only say "socket closed" (RNM-TLS-0003)."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise LocalFault(
            "RNM-TLS-0003",
            what=f"the certificate {where} was not used",
            why=f"it is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; the clock here says "
            f"{now:%Y-%m-%d %H:%M}",
            mend="enrol again to renew it; if the dates look right, set this machine's clock",
        )


def fingerprint(certificate_pem: bytes) -> str:
    """Return the SHA-256 fingerprint that is compared out of band."""
    return x509.load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()
