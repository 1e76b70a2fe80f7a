//! That a stream comes back as it went, and in no other way.

use std::sync::Arc;

use culvert_pki::stream::BackupKey;
use culvert_resources::job::TargetConfig;
use futures::TryStreamExt as _;
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::outward::Destination;
use super::*;
use crate::storage::{PART_BYTES, Patience, Storage};

const FOLDER: &str = "backups/one";
const NAME: &str = "base.tar.zst";

fn share() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().to_str().unwrap().to_owned();
    let config = TargetConfig { name: "nightly".into(), share: Some(mount), ..TargetConfig::default() };
    let storage = Storage::open(&config, Patience::CHECK).unwrap();
    (folder, storage)
}

fn key() -> Option<Arc<BackupKey>> {
    Some(Arc::new(BackupKey::generate().unwrap()))
}

/// Bytes that zstd cannot make smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

async fn put(
    storage: &Storage,
    key: Option<Arc<BackupKey>>,
    bytes: &[u8],
    ended: Result<(), PackError>,
) -> Result<Packed, PackError> {
    let to = Destination { storage, folder: FOLDER, name: NAME, key, volume_bytes: 2 * PART_BYTES as u64 };
    let never = CancellationToken::new();
    pack(bytes, std::future::ready(ended), to, &Meter::default(), &never).await
}

async fn get(storage: &Storage, packed: &Packed, key: Option<Arc<BackupKey>>) -> Result<Vec<u8>, PackError> {
    let read = |reader: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    };
    unpack(storage, FOLDER, packed, key, &Arc::default(), read).await
}

async fn count(storage: &Storage) -> usize {
    storage.list("").try_collect::<Vec<_>>().await.unwrap().len()
}

#[rstest]
#[case(0, 1)]
#[case(1, 1)]
#[case(PART_BYTES, 1)]
#[case(5 * PART_BYTES / 2, 2)]
#[tokio::test]
async fn a_stream_comes_back_as_it_went(#[case] length: usize, #[case] volumes: usize) {
    let (bytes, (_folder, storage)) = (noise(length), share());
    for key in [key(), None] {
        let packed = put(&storage, key.clone(), &bytes, Ok(())).await.unwrap();
        assert_eq!((packed.plain_bytes, packed.volumes.len()), (length as u64, volumes));
        assert!(get(&storage, &packed, key).await.unwrap() == bytes, "{length} bytes came back otherwise");
    }
}

#[tokio::test]
async fn what_the_engine_did_not_end_is_not_there() {
    let (_folder, storage) = share();
    for length in [100, 3 * PART_BYTES / 2] {
        let died = Err(PackError::Engine("pg_dump died".into()));
        let error = put(&storage, key(), &noise(length), died).await.unwrap_err();
        assert_eq!(error.to_string(), "pg_dump died");
        assert_eq!(count(&storage).await, 0);
    }
}

#[rstest]
#[case(key())]
#[case(None)]
#[tokio::test]
async fn damage_is_found_in_every_way_it_comes(#[case] key: Option<Arc<BackupKey>>) {
    let bytes = noise(3 * PART_BYTES);
    let (folder, storage) = share();
    let packed = put(&storage, key.clone(), &bytes, Ok(())).await.unwrap();
    let path = folder.path().join(FOLDER).join(&packed.volumes[1].name);
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let truncated = good[..good.len() - 1].to_vec();
    for damaged in [Some(flipped), Some(truncated), None] {
        match &damaged {
            Some(damaged) => std::fs::write(&path, damaged).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let error = get(&storage, &packed, key.clone()).await.unwrap_err();
        assert!(matches!(error, PackError::Damaged { .. } | PackError::Cipher { .. }), "{error}");
        assert!(error.to_string().contains(NAME), "{error}");
    }
}

#[tokio::test]
async fn another_key_opens_nothing() {
    let (_folder, storage) = share();
    let packed = put(&storage, key(), b"secret", Ok(())).await.unwrap();
    let error = get(&storage, &packed, key()).await.unwrap_err();
    assert!(matches!(error, PackError::Cipher { source: StreamError::OtherKey { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_sink_that_fails_ends_it_with_its_own_error() {
    let (_folder, storage) = share();
    let packed = put(&storage, None, &noise(3 * PART_BYTES), Ok(())).await.unwrap();
    let full =
        |_: &mut dyn std::io::Read| -> std::io::Result<()> { Err(std::io::ErrorKind::StorageFull.into()) };
    let error = unpack(&storage, FOLDER, &packed, None, &Arc::default(), full).await.unwrap_err();
    assert!(
        matches!(&error, PackError::Sink(error) if error.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
}

#[tokio::test]
async fn a_cancelled_stream_leaves_nothing() {
    let (_folder, storage) = share();
    let (cancel, endless) = (CancellationToken::new(), tokio::io::repeat(7));
    let to =
        Destination { storage: &storage, folder: FOLDER, name: NAME, key: None, volume_bytes: VOLUME_BYTES };
    cancel.cancel();
    let error = pack(endless, std::future::ready(Ok(())), to, &Meter::default(), &cancel).await.unwrap_err();
    assert!(matches!(error, PackError::Cancelled), "{error}");
    assert_eq!(count(&storage).await, 0);
}
