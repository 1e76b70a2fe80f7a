//! Reaches a target: S3, Azure Blob Storage, GCS, a file share.
