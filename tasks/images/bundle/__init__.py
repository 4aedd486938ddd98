"""Bundles: a release's images in one file, for sites with no line to where images are."""

from tasks.images.bundle.absent import MissingBaseError
from tasks.images.bundle.form import Compression, bundle_name
from tasks.images.bundle.held import Base, HeldList, read_held
from tasks.images.bundle.record import BundleFacts
from tasks.images.bundle.signature import require_key, sign_bundle, signature_path
from tasks.images.bundle.slot import require_folder
from tasks.images.bundle.source import BundleSource, verify_bundle
from tasks.images.bundle.writing import compression_for, write_bundle

__all__ = [
    "Base",
    "BundleFacts",
    "BundleSource",
    "Compression",
    "HeldList",
    "MissingBaseError",
    "bundle_name",
    "compression_for",
    "read_held",
    "require_folder",
    "require_key",
    "sign_bundle",
    "signature_path",
    "verify_bundle",
    "write_bundle",
]
