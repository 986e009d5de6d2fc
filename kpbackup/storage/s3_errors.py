"""What an S3 store's refusals and failures mean, in kpbackup's words, with what to do about them.

Limits: knows the codes of Amazon S3 and of the servers that copy it; an unknown code is shown as it came.
Nothing here repeats a secret: request headers and the store's own long messages about signatures are left out.
"""

from __future__ import annotations

import botocore.exceptions as boto
from botocore.parsers import ResponseParserError

from kpbackup import errors

FAILURES = (boto.ClientError, boto.BotoCoreError, ResponseParserError)

_TRANSIENT_CODES = frozenset(
    (
        "InternalError",
        "SlowDown",
        "ServiceUnavailable",
        "RequestTimeout",
        "RequestTimeoutException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "OperationAborted",
        "BadDigest",
        "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch",
    )
)
_TRANSIENT_STATUS = frozenset((408, 429, 500, 502, 503, 504))
_TRANSIENT_CLASSES = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    ResponseParserError,
)

_CAUSES: dict[str, tuple[str, str]] = {
    "NoSuchBucket": ("the bucket does not exist", "check the bucket's name, or create it"),
    "AccessDenied": (
        "access denied",
        "the key may not do this, or the bucket is read-only; grant the account list, get and put on this bucket and prefix",
    ),
    "AllAccessDisabled": ("the bucket is disabled", "ask its owner"),
    "InvalidAccessKeyId": ("the store does not know this access key", "check AWS_ACCESS_KEY_ID or the profile in use"),
    "SignatureDoesNotMatch": (
        "the store refused the signature",
        "the secret key does not belong to the access key: check AWS_SECRET_ACCESS_KEY, or a proxy that changes requests",
    ),
    "ExpiredToken": ("the session token has expired", "log in again, or renew the credentials"),
    "InvalidToken": ("the session token is not valid", "check AWS_SESSION_TOKEN, or unset it for a plain key"),
    "RequestTimeTooSkewed": (
        "this machine's clock and the store's differ too much",
        "set the clock of this machine right (chrony, ntpd), then try again",
    ),
    "PermanentRedirect": ("the bucket is in another region", "set the bucket's region"),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", "set the bucket's region"),
    "IllegalLocationConstraintException": ("the bucket is in another region", "set the bucket's region"),
    "EntityTooLarge": ("the object is too large for this store", "raise the store's limit"),
    "QuotaExceeded": ("the store is full", "free space or raise the quota"),
    "XMinioStorageFull": ("the store is full", "free space or raise the quota"),
    "InsufficientStorage": ("the store is full", "free space or raise the quota"),
    "SlowDown": ("the store is overloaded and asked to slow down", "try again later, or use fewer parallel uploads"),
    "BadDigest": ("the bytes that arrived do not match their checksum", "check the network and any proxy on the way"),
    "InvalidBucketName": ("the bucket's name is not valid", "check the url of the repository"),
}
_SAME_CAUSE = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "AccountProblem": "AllAccessDisabled",
    "301": "PermanentRedirect",
}


def code_of(exc: BaseException | None) -> str:
    """The store's error code ("NoSuchKey"; "404" when there was no body), "" for anything else."""
    return str(exc.response.get("Error", {}).get("Code", "")) if isinstance(exc, boto.ClientError) else ""


def status_of(exc: Exception) -> int:
    """The HTTP status, 0 if there was no answer."""
    if not isinstance(exc, boto.ClientError):
        return 0
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient(exc: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(exc, boto.ClientError):
        return code_of(exc) in _TRANSIENT_CODES or status_of(exc) in _TRANSIENT_STATUS
    return isinstance(exc, _TRANSIENT_CLASSES) and not isinstance(exc, boto.SSLError)


def is_ambiguous(exc: Exception) -> bool:
    """Whether the request may have been carried out all the same: no answer, or one of a failing server."""
    return not isinstance(exc, boto.ClientError) or status_of(exc) >= 500


def is_missing(exc: Exception) -> bool:
    """Whether the object, not the bucket, is absent."""
    return code_of(exc) in ("NoSuchKey", "404", "NotFound")


def is_precondition(exc: Exception) -> bool:
    """Whether a condition sent with the request did not hold."""
    return status_of(exc) == 412 or code_of(exc) == "PreconditionFailed"


def translate(exc: Exception, doing: str, store: str) -> errors.StorageError:
    """The error to raise. `doing` is operation and object ("store s3://b/k"), `store` where the requests went."""
    if isinstance(exc, boto.ClientError):
        return _refusal(exc, doing, store)
    cause, hint = _failure(exc, store)
    return errors.StorageError(f"cannot {doing} at {store}: {cause}", hint=hint)


def _refusal(exc: boto.ClientError, doing: str, store: str) -> errors.StorageError:
    code, status = code_of(exc), status_of(exc)
    where = f"cannot {doing} at {store}"
    if is_missing(exc):
        return errors.ObjectMissing(f"{where}: it does not exist")
    if is_precondition(exc):
        return errors.PreconditionFailed(f"{where}: another writer has changed or deleted it")
    if status == 501 or code == "NotImplemented":
        hint = "run `kpbackup doctor`; use a store that does"
        return errors.NotSupported(f"{where}: the store does not support this", hint=hint)
    if known := _CAUSES.get(_SAME_CAUSE.get(code, code)):
        return errors.StorageError(f"{where}: {known[0]} ({code})", hint=known[1])
    said = str(exc.response.get("Error", {}).get("Message", ""))[:200]
    hint = "the store fails: see its log, or try again later" if status >= 500 else "see the store's documentation of this code"
    return errors.StorageError(f"{where}: the store answered {code or status}: {said}", hint=hint)


def _failure(exc: Exception, store: str) -> tuple[str, str]:
    """Cause and hint of a request that got no proper answer."""
    if isinstance(exc, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return "no usable credentials found", (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
        )
    if isinstance(exc, boto.ProfileNotFound):
        return str(exc), "check AWS_PROFILE"
    if isinstance(exc, boto.SSLError):
        return f"TLS failed: {exc.kwargs.get('error')}", "check the store's certificate; AWS_CA_BUNDLE names a private authority"
    if isinstance(exc, boto.ConnectTimeoutError | boto.EndpointConnectionError | boto.ProxyConnectionError):
        return "the endpoint cannot be reached", f"check that {store} is right, up, and allowed by the firewall or proxy"
    if isinstance(exc, boto.ReadTimeoutError):
        return "the store stopped answering", "check the store and the network, then try again"
    if isinstance(exc, boto.IncompleteReadError | boto.HTTPClientError):
        return "the connection broke off", "check the store and the network, then try again"
    return f"{type(exc).__name__}: {exc}"[:300], ""
