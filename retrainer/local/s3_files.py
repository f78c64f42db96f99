"""Files between a container's directories and S3."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.config
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError


class DataError(Exception):
    """Data could not be brought in or out: the caller's fault, and the reason the job failed."""


class S3Files:
    """Downloads and uploads as SageMaker does around a container; every method blocks."""

    def __init__(self, endpoint_url: str, region: str) -> None:
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106  the emulator takes any
            config=botocore.config.Config(s3={"addressing_style": "path"}, max_pool_connections=16),
        )
        self._transfer = TransferConfig(use_threads=False)

    def keys(self, uri: str) -> Iterator[str]:
        bucket, prefix = split(uri)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", []):
                yield found["Key"]

    def download_prefix(self, uri: str, directory: Path, *, required: bool = True) -> int:
        """Brings every object under the prefix into the directory; returns how many there were."""
        bucket, prefix = split(uri)
        directory.mkdir(parents=True, exist_ok=True)
        count = 0
        try:
            for key in self.keys(uri):
                if key.endswith("/"):
                    continue
                self._download(bucket, key, inside(directory, relative_key(key, prefix)))
                count += 1
        except ClientError as error:
            raise DataError(f"Data download failed: {error.response['Error']['Message']} ({uri})") from error
        if required and count == 0:
            raise DataError(
                f'Data download failed: No S3 objects found under S3 URL "{uri}" given in input data source. '
                "Please ensure that the bucket exists and that objects exist under that S3 prefix."
            )
        return count

    def download_file(self, uri: str, path: Path) -> None:
        bucket, key = split(uri)
        try:
            self._download(bucket, key, path)
        except ClientError as error:
            raise DataError(f"could not download {uri}: {error.response['Error']['Message']}") from error

    def upload_file(self, path: Path, uri: str) -> None:
        bucket, key = split(uri)
        try:
            self._s3.upload_file(str(path), bucket, key, Config=self._transfer)
        except (ClientError, boto3.exceptions.S3UploadFailedError) as error:
            raise DataError(f"could not upload {uri}: {error}") from error

    def upload_directory(self, directory: Path, uri: str, seen: dict[Path, tuple[int, int]] | None = None) -> None:
        """Sends every file; with `seen`, only those whose size or time changed since the last call."""
        for path in sorted(directory.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            try:
                stat = path.stat()
                mark = (stat.st_size, stat.st_mtime_ns)
                if seen is None or seen.get(path) != mark:
                    self.upload_file(path, f"{uri.rstrip('/')}/{path.relative_to(directory).as_posix()}")
            except FileNotFoundError:
                continue  # the container renamed or removed it: the next pass sees what became of it
            if seen is not None:
                seen[path] = mark

    def _download(self, bucket: str, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._s3.download_file(bucket, key, str(path), Config=self._transfer)


def split(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` as its two parts."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise DataError(f"{uri!r} is not an S3 URI")
    return parts.netloc, parts.path.lstrip("/")


def relative_key(key: str, prefix: str) -> str:
    """Where an object lies under its channel: an S3Prefix matches names, not folders.

    >>> relative_key("a/train/x.parquet", "a/train"), relative_key("a/train", "a/train"), relative_key("a/tr1", "a/tr")
    ('x.parquet', 'train', 'tr1')
    """
    rest = key[len(prefix) :]
    if rest and (prefix.endswith("/") or not prefix or rest.startswith("/")):
        return rest.lstrip("/")
    return key[prefix.rfind("/") + 1 :]


def inside(directory: Path, relative: str) -> Path:
    """The path below the directory; a key that climbs out of it is refused."""
    if ".." in PurePosixPath(relative).parts:
        raise DataError(f"the key {relative!r} climbs out of its directory")
    return directory / relative


def pack(directory: Path, archive: Path) -> None:
    """A directory's content as a .tar.gz, its entries relative to the directory."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(directory.iterdir()):
            tar.add(path, arcname=path.name)


def unpack(archive: Path, directory: Path) -> None:
    """Its regular files only, none outside the directory (tarfile's own filters came with Python 3.11.4)."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                if content := tar.extractfile(member) if member.isfile() else None:
                    target = inside(directory, member.name.lstrip("/"))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
    except tarfile.TarError as error:
        raise DataError(f"{archive.name} is not a tar archive: {error}") from error
