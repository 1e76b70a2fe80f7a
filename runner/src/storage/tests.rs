//! The target as a file share; the kinds behind HTTP are tested on real servers in `runner/tests`.

use super::*;

fn share() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let config = TargetConfig {
        name: "nightly".into(),
        share: Some(folder.path().to_str().unwrap().into()),
        prefix: "backups/of us".into(),
        ..TargetConfig::default()
    };
    let storage = Storage::open(&config, Patience::CHECK).unwrap();
    (folder, storage)
}

async fn names(storage: &Storage, folder: &str) -> Vec<String> {
    let mut names: Vec<String> = storage.list(folder).map_ok(|entry| entry.path).try_collect().await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_put_is_listed_read_and_deleted() {
    let (_folder, storage) = share();
    storage.put("a/one", "1").await.unwrap();
    storage.put("a/b/two", "22").await.unwrap();
    assert_eq!(names(&storage, "a").await, ["a/b/two", "a/one"]);
    assert_eq!(storage.folders("a").await.unwrap(), ["b"]);
    assert_eq!(storage.get("a/b/two", 10).await.unwrap(), "22");
    storage.delete("a/one").await.unwrap();
    storage.delete("a/one").await.unwrap();
    assert_eq!(storage.entry("a/one").await.unwrap(), None);
    assert_eq!(storage.get("a/one", 10).await.unwrap_err().code, FaultCode::NotFound);
}

#[tokio::test]
async fn an_object_is_not_replaced_by_a_new_one() {
    let (_folder, storage) = share();
    storage.put_new("one", "1").await.unwrap();
    assert_eq!(storage.put_new("one", "2").await.unwrap_err().code, FaultCode::Exists);
    assert_eq!(storage.get("one", 10).await.unwrap(), "1");
}

#[tokio::test]
async fn an_upload_is_seen_when_it_is_finished() {
    let (_folder, storage) = share();
    let mut upload = storage.upload("a/long");
    for _ in 0..2 * PARTS_AT_ONCE {
        upload.part(Bytes::from(vec![7; 1000])).await.unwrap();
    }
    assert_eq!(names(&storage, "a").await, Vec::<String>::new());
    upload.finish(Bytes::from_static(b"end")).await.unwrap();
    assert_eq!(storage.entry("a/long").await.unwrap().unwrap().bytes, 6003);
}

#[tokio::test]
async fn what_a_killed_upload_left_is_removed() {
    let (folder, storage) = share();
    let mut upload = storage.upload("a/long");
    upload.part(Bytes::from(vec![7; 1000])).await.unwrap();
    std::mem::forget(upload);
    let below = folder.path().join("backups/of us/a");
    assert_eq!(std::fs::read_dir(&below).unwrap().count(), 1);
    storage.put("a/foreign", "not ours").await.unwrap();
    storage.abandon_uploads("a").await.unwrap();
    let left: Vec<_> = std::fs::read_dir(&below).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["foreign"]);
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let (folder, storage) = share();
    let mut upload = storage.upload("a/long");
    upload.part(Bytes::from(vec![7; 1000])).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("backups/of us/a")).unwrap().count(), 0);
}
