//! Out of a target: checks, decrypts, decompresses.

use std::error::Error;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use culvert_pki::stream::{BackupKey, Opener, StreamError};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::{BLOCK, BLOCKS, Meter, PackError, Packed, Volume};
use crate::storage::{FaultCode, Storage, fault_of};

/// Hands the bytes of a stream to `sink`, on a thread of its own. What the sink got counts only when this has
/// returned: by then every digest was right and the end was seen.
pub async fn unpack<T, S>(
    storage: &Storage,
    folder: &str,
    packed: &Packed,
    key: Option<Arc<BackupKey>>,
    meter: &Arc<Meter>,
    sink: S,
) -> Result<T, PackError>
where
    T: Send + 'static,
    S: FnOnce(&mut dyn Read) -> io::Result<T> + Send + 'static,
{
    let (to, from) = mpsc::channel(BLOCKS);
    let (name, count) = (packed.name.clone(), Arc::clone(meter));
    let using = tokio::task::spawn_blocking(move || consume(from, &name, key, &count, sink));
    let fetched = fetch(storage, folder, packed, &to).await;
    drop(to);
    let used = using.await.map_err(|_| PackError::Broken)?;
    match (fetched, used) {
        // The sink ended early and for a reason of its own.
        (Ok(()) | Err(PackError::Broken), Err(error)) => Err(error),
        (Err(error), _) => Err(error),
        (Ok(()), Ok(value)) => Ok(value),
    }
}

/// Reads a stream to its end and compares every digest, and uses nothing of it.
pub async fn check(storage: &Storage, folder: &str, packed: &Packed) -> Result<(), PackError> {
    for volume in &packed.volumes {
        fetch_volume(storage, folder, volume, None).await?;
    }
    Ok(())
}

/// Only blocks of volumes that begin well are handed on; the end is told when all digests were right.
async fn fetch(
    storage: &Storage,
    folder: &str,
    packed: &Packed,
    to: &mpsc::Sender<Option<Bytes>>,
) -> Result<(), PackError> {
    for volume in &packed.volumes {
        fetch_volume(storage, folder, volume, Some(to)).await?;
    }
    to.send(None).await.map_err(|_| PackError::Broken)
}

async fn fetch_volume(
    storage: &Storage,
    folder: &str,
    volume: &Volume,
    to: Option<&mpsc::Sender<Option<Bytes>>>,
) -> Result<(), PackError> {
    let damaged = |how: String| PackError::Damaged { object: volume.name.clone(), how };
    let mut reader = match storage.read(&format!("{folder}/{}", volume.name)).await {
        Err(fault) if fault.code == FaultCode::NotFound => return Err(damaged("it is missing".to_owned())),
        reader => reader?,
    };
    if reader.bytes() != volume.bytes {
        return Err(damaged(format!("it has {} bytes and should have {}", reader.bytes(), volume.bytes)));
    }
    let mut digest = Sha256::new();
    loop {
        let mut block = BytesMut::with_capacity(BLOCK);
        let read = reader.read_buf(&mut block).await;
        if read.map_err(|error| match fault_of(error) {
            Ok(fault) => PackError::Target(fault),
            Err(error) => damaged(error.to_string()),
        })? == 0
        {
            break;
        }
        digest.update(&block);
        if let Some(to) = to {
            to.send(Some(block.freeze())).await.map_err(|_| PackError::Broken)?;
        }
    }
    if HEXLOWER.encode(&digest.finalize()) == volume.sha256 {
        Ok(())
    } else {
        Err(damaged("its SHA-256 is not that of the manifest".to_owned()))
    }
}

fn consume<T>(
    from: mpsc::Receiver<Option<Bytes>>,
    name: &str,
    key: Option<Arc<BackupKey>>,
    meter: &Meter,
    sink: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> Result<T, PackError> {
    let blocks = Blocks { from, block: Bytes::new(), ended: false };
    let result = match key.as_deref() {
        Some(key) => {
            let opener = Some(Opener::begin(key, name.as_bytes()));
            decompress(Opened { blocks, opener, ready: Vec::new(), at: 0 }, meter, sink)
        }
        None => decompress(blocks, meter, sink),
    };
    result.map_err(|error| explain(error, name))
}

/// To the very end, also when the sink has had enough: only then the end is known to be the end.
fn decompress<T>(
    reader: impl Read,
    meter: &Meter,
    sink: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<T> {
    let mut counted = Counted { reader: zstd::Decoder::new(reader)?, meter };
    let value = sink(&mut counted)?;
    io::copy(&mut counted, &mut io::sink())?;
    Ok(value)
}

/// Errors of the reader come through the sink, and through whatever it wraps them in.
fn explain(error: io::Error, name: &str) -> PackError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(this) = cause {
        if let Some(source) = this.downcast_ref::<StreamError>() {
            return PackError::Cipher { stream: name.to_owned(), source: source.clone() };
        }
        if this.is::<BrokenOff>() {
            return PackError::Broken;
        }
        if let Some(Corrupt(how)) = this.downcast_ref::<Corrupt>() {
            return PackError::Damaged { object: name.to_owned(), how: how.clone() };
        }
        cause = match this.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => this.source(),
        };
    }
    PackError::Sink(error)
}

/// It cannot be decompressed.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be decompressed: {0}")]
struct Corrupt(String);

/// The stream ended without its end being told: whoever fetches it has the error.
#[derive(Debug, thiserror::Error)]
#[error("the stream was broken off")]
struct BrokenOff;

struct Counted<'m, R> {
    reader: R,
    meter: &'m Meter,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(out).map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<StreamError>() || inner.is::<BrokenOff>() => error,
            _ => io::Error::other(Corrupt(error.to_string())),
        })?;
        self.meter.add_done(read as u64);
        Ok(read)
    }
}

struct Blocks {
    from: mpsc::Receiver<Option<Bytes>>,
    block: Bytes,
    ended: bool,
}

impl Blocks {
    /// The next block; none at the end.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        match self.from.blocking_recv() {
            Some(Some(block)) => Ok(Some(block)),
            Some(None) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(io::Error::other(BrokenOff)),
        }
    }
}

impl Read for Blocks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() {
            match self.next()? {
                Some(block) => self.block = block,
                None => return Ok(0),
            }
        }
        let count = self.block.len().min(out.len());
        self.block.copy_to_slice(out.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

struct Opened<'k> {
    blocks: Blocks,
    opener: Option<Opener<'k>>,
    ready: Vec<u8>,
    at: usize,
}

impl Opened<'_> {
    /// Fills `ready`; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.ready.clear();
        self.at = 0;
        while self.ready.is_empty() {
            let Some(opener) = self.opener.as_mut() else { return Ok(false) };
            match self.blocks.next()? {
                Some(block) => opener.update(&block, &mut self.ready).map_err(io::Error::other)?,
                None => {
                    if let Some(opener) = self.opener.take() {
                        opener.finish(&mut self.ready).map_err(io::Error::other)?;
                    }
                }
            }
        }
        Ok(true)
    }
}

impl Read for Opened<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() && !self.fill()? {
            return Ok(0);
        }
        let mut rest = self.ready.get(self.at..).unwrap_or_default();
        let count = io::Read::read(&mut rest, out)?;
        self.at += count;
        Ok(count)
    }
}
