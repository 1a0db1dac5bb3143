"""Whom an encrypted connection trusts: what the system trusts, and what a caller adds."""

import os
import re
import ssl
import sys
from pathlib import Path

from pipeline.errors import WireError
from pipeline.wire import one_line

_NOISE = re.compile(r"^\[[^]]*\] |\.? \(_ssl\.c:\d+\)$")
"""Around what OpenSSL says."""
_UNKNOWN_ISSUER = (18, 19, 20, 21)
"""OpenSSL's X509_V_ERR_... of a certificate that signed itself, or was signed by nobody who is trusted."""


def system_context(added: bytes | None = None) -> ssl.SSLContext | None:
    """Return a TLS context that trusts what the system does and these certificates (PEM); None if nobody can tell.

    On Linux the system's certificates are files that OpenSSL finds. On macOS they are in the keychain, which only the
    native wire asks. SSL_CERT_FILE and SSL_CERT_DIR in the environment stand for all of them. Raises WireError if what
    they name can't be read.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if sys.platform != "linux" or not (file or folder or _finds_certificates()):
        return None
    try:
        context = ssl.create_default_context(cafile=file or None, capath=folder or None)
    except OSError as error:  # an SSLError is one
        message = f"the certificates to trust can't be read: {one_line(str(error))} ($SSL_CERT_FILE, $SSL_CERT_DIR)"
        raise WireError("tls", message, maybe_sent=False) from error
    # From Python 3.13 on a company's own authority would have to name its key in its certificate; no other client asks.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    if added is not None:
        context.load_verify_locations(cadata=added.decode("ascii"))
    return context


def explained(error: ssl.SSLError) -> str:
    """Say why there is no encrypted connection, and what may help where that is known."""
    said = one_line(_NOISE.sub("", str(error)))
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _UNKNOWN_ISSUER:
        return f"{said} (SSL_CERT_FILE names the file of certificates to trust)"
    if error.reason == "WRONG_VERSION_NUMBER":
        return f"{said} (what answers there does not speak TLS: perhaps its address begins with http://)"
    return said


def _finds_certificates() -> bool:
    paths = ssl.get_default_verify_paths()  # None is what isn't there
    return bool(paths.cafile) or (bool(paths.capath) and any(Path(paths.capath).glob("*.[0-9]")))
