"""What the faults of S3's client mean in the project's errors."""

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from tasks.errors import NotFoundError, StoreError, TransientStoreError
from tasks.remote.access import redacted
from tasks.remote.retries import parse_retry_after

MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NoSuchUpload", "404", "NotFound"})
_PASSING = frozenset({
    "RequestTimeout", "RequestTimeoutException", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling",
    "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted",
})  # fmt: skip
DAMAGED = frozenset({
    "BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "IncompleteBody",
})  # fmt: skip
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_REFUSED = frozenset({
    "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "403",
})  # fmt: skip
_ELSEWHERE = frozenset({
    "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
    "301", "307",
})  # fmt: skip
# 409: two conditional writes at once; the loser is to look again, as after a 412.
CONFLICT = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    NoAuthTokenError,
    TokenRetrievalError,
    SSOError,
)
_NO_ANSWER = (ConnectionError, HTTPClientError)
_DAMAGED_ANSWER = (ResponseStreamingError, IncompleteReadError, FlexibleChecksumError, ResponseParserError)


def error_code(error: ClientError) -> str:
    """S3's name of the fault, or its HTTP status where an answer has no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def translate(error: BotoCoreError | ClientError | ResponseParserError, where: str) -> StoreError:
    """The project's error for one of botocore's; a conflict counts as something that will not pass."""
    if isinstance(error, ClientError):
        return _of_code(error, where)
    said, attempts = words(error), getattr(error, "attempts", 1)
    if isinstance(error, _NO_CREDENTIALS):
        return StoreError(
            f"{where}: no credentials for S3 could be had ({said}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is attached"
        )
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(
            f"{where}: the certificate of S3's endpoint cannot be trusted ({said}); name the file of the "
            "authority that signed it in AWS_CA_BUNDLE"
        )
    if isinstance(error, _DAMAGED_ANSWER):
        return TransientStoreError(
            f"{where}: the answer broke off or was damaged on the way: {said}; try again later, and see that "
            "AWS_ENDPOINT_URL_S3, if it is set, is the URL of a service that speaks S3"
        )
    if isinstance(error, _NO_ANSWER):
        times = "" if attempts == 1 else f" after {attempts} attempts"
        return TransientStoreError(f"{where}: S3 cannot be reached{times}: {said}; try again later", attempts=attempts)
    return StoreError(f"{where}: {said}")


def _of_code(error: ClientError, where: str) -> StoreError:
    code, metadata = error_code(error), error.response.get("ResponseMetadata", {})
    status: int = metadata.get("HTTPStatusCode", 0)
    detail = words(error.response.get("Error", {}).get("Message") or "no more was said")
    if code in MISSING:
        return NotFoundError(f"{where}: there is no such thing on S3 ({code}); look at bucket, prefix and region")
    if code in _PASSING or code in DAMAGED or status == 429 or status >= 500:
        attempts = 1 + metadata.get("RetryAttempts", 0)
        times = "" if attempts == 1 else f" after {attempts} attempts"
        retry_after = parse_retry_after(metadata.get("HTTPHeaders", {}).get("retry-after"))
        message = f"{where}: S3 answered {code}{times}: {detail}; try again later"
        return TransientStoreError(message, retry_after, attempts)
    if code in _EXPIRED:
        return StoreError(f"{where}: the credentials for S3 have expired ({code}); renew them, then run again")
    if code in _REFUSED:
        return StoreError(f"{where}: S3 refused access ({code}: {detail}); look at credentials, policy and region")
    if code in _ELSEWHERE:
        return StoreError(f"{where}: the bucket is in another region ({code}: {detail}); set AWS_DEFAULT_REGION to it")
    if code == "400":
        # The answer to HEAD has no body, so S3 cannot say which of its many reasons it is.
        return StoreError(
            f"{where}: S3 answered 400 and no more; mostly the credentials have expired, or the region is "
            "another: renew them, and look at AWS_DEFAULT_REGION"
        )
    return StoreError(f"{where}: S3 answered {code}: {detail}")


def words(error: object) -> str:
    """What an error says, on one line and as it may be shown."""
    return redacted(" ".join(str(error).split()))
