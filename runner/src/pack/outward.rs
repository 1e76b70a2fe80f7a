//! From a reader into a target.

use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use culvert_pki::stream::BackupKey;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zstd::zstd_safe::CParameter;

use super::seal::{Cutter, Piece};
use super::{BLOCK, BLOCKS, LEVEL, Meter, PackError, Packed, Volume};
use crate::storage::{Storage, Upload};

/// Bytes that zstd compresses in one piece.
const PIECE: u32 = 2 << 20;

/// What goes through the channels: a stream that ends without [`Block::End`] was broken off.
enum Block {
    Bytes(Bytes),
    End,
}

/// Where a stream goes to.
pub struct Destination<'a> {
    /// The target.
    pub storage: &'a Storage,
    /// Folder in it.
    pub folder: &'a str,
    /// Name of the stream.
    pub name: &'a str,
    /// The key, when it shall be encrypted.
    pub key: Option<Arc<BackupKey>>,
    /// Bytes of a volume at most.
    pub volume_bytes: u64,
}

/// Packs all of `reader` into objects of the target. `ended` is asked when the reader is at its end, and says
/// whether it is the end of the data; nothing becomes visible when it is not, nor when this is cancelled.
pub async fn pack<R, E>(
    reader: R,
    ended: E,
    to: Destination<'_>,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Packed, PackError>
where
    R: AsyncRead + Unpin,
    E: Future<Output = Result<(), PackError>>,
{
    let (plain_in, plain_out) = mpsc::channel(BLOCKS);
    let (small_in, small_out) = mpsc::channel(BLOCKS);
    let (pieces_in, pieces_out) = mpsc::channel(1);
    let cutter = Cutter::new(to.name, to.key.as_ref(), to.volume_bytes)
        .map_err(|source| PackError::Cipher { stream: to.name.to_owned(), source })?;
    let name = to.name.to_owned();
    let compressing = tokio::task::spawn_blocking(move || compress(plain_out, &small_in));
    let cutting = tokio::task::spawn_blocking(move || cut(small_out, &pieces_in, cutter, &name));
    let work = async {
        tokio::try_join!(
            feed(reader, ended, plain_in, meter),
            async { compressing.await.map_err(|_| PackError::Broken)? },
            async { cutting.await.map_err(|_| PackError::Broken)? },
            upload(pieces_out, &to, meter, cancel),
        )
    };
    let (plain_bytes, (), (), volumes) = work.await?;
    Ok(Packed { name: to.name.to_owned(), plain_bytes, volumes })
}

/// Reads to the end. When whoever comes after has failed, that error is the one that counts, so this one waits.
async fn feed<R, E>(mut reader: R, ended: E, to: mpsc::Sender<Block>, meter: &Meter) -> Result<u64, PackError>
where
    R: AsyncRead + Unpin,
    E: Future<Output = Result<(), PackError>>,
{
    let mut total = 0;
    loop {
        let mut block = BytesMut::with_capacity(BLOCK);
        while block.len() < BLOCK && reader.read_buf(&mut block).await.map_err(broken_pipe)? > 0 {}
        if block.is_empty() {
            break;
        }
        total += block.len() as u64;
        meter.add_done(block.len() as u64);
        hand_on(&to, Block::Bytes(block.freeze())).await?;
    }
    ended.await?;
    hand_on(&to, Block::End).await?;
    Ok(total)
}

fn broken_pipe(error: io::Error) -> PackError {
    PackError::Engine(format!("the engine's data could not be read: {error}"))
}

/// The receiver is gone only when it has failed: its error is about to come.
async fn hand_on(to: &mpsc::Sender<Block>, block: Block) -> Result<(), PackError> {
    match to.send(block).await {
        Ok(()) => Ok(()),
        Err(_) => std::future::pending().await,
    }
}

fn compress(mut from: mpsc::Receiver<Block>, to: &mpsc::Sender<Block>) -> Result<(), PackError> {
    let broken = |_: io::Error| PackError::Broken;
    let sink = Blocks { to, block: Vec::with_capacity(BLOCK) };
    let mut encoder = zstd::Encoder::new(sink, LEVEL).map_err(broken)?;
    encoder.include_checksum(true).map_err(broken)?;
    // With a worker zstd compresses whole pieces; alone it takes each block as it comes and finds its own window cut in
    // two, which takes a third longer. The size bounds the memory: with zstd's own choice it is 40 MiB more.
    encoder.multithread(1).map_err(broken)?;
    encoder.set_parameter(CParameter::JobSize(PIECE)).map_err(broken)?;
    loop {
        match from.blocking_recv() {
            Some(Block::Bytes(bytes)) => {
                if encoder.write_all(&bytes).is_err() {
                    return Ok(());
                }
            }
            // Broken off: whoever broke it off has the error.
            None => return Ok(()),
            Some(Block::End) => break,
        }
    }
    if encoder.finish().and_then(|mut sink| sink.flush()).is_ok() {
        // The receiver's own error counts when it is gone.
        drop(to.blocking_send(Block::End));
    }
    Ok(())
}

/// Hands compressed bytes on in blocks. An error means that the receiver is gone.
struct Blocks<'a> {
    to: &'a mpsc::Sender<Block>,
    block: Vec<u8>,
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let sent = self.to.blocking_send(Block::Bytes(block.into()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

fn cut(
    mut from: mpsc::Receiver<Block>,
    to: &mpsc::Sender<Piece>,
    mut cutter: Cutter,
    name: &str,
) -> Result<(), PackError> {
    let wrong = |source| PackError::Cipher { stream: name.to_owned(), source };
    loop {
        let ended = match from.blocking_recv() {
            Some(Block::Bytes(bytes)) => {
                cutter.update(&bytes).map_err(wrong)?;
                false
            }
            Some(Block::End) => {
                cutter.finish().map_err(wrong)?;
                true
            }
            None => return Ok(()),
        };
        while let Some(piece) = cutter.take() {
            if to.blocking_send(piece).is_err() {
                return Ok(());
            }
        }
        if ended {
            drop(to.blocking_send(cutter.last()));
            return Ok(());
        }
    }
}

/// Uploads until the pieces end. Volumes are all there, or the last of them was given up.
async fn upload(
    mut pieces: mpsc::Receiver<Piece>,
    to: &Destination<'_>,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Vec<Volume>, PackError> {
    let mut volumes: Vec<Volume> = Vec::new();
    let mut current: Option<Upload> = None;
    loop {
        let piece = tokio::select! {
            () = cancel.cancelled() => Err(PackError::Cancelled),
            piece = pieces.recv() => Ok(piece),
        };
        let sent = match piece {
            Ok(Some(piece)) => send(piece, to, &mut current, volumes.len(), meter, cancel).await,
            Ok(None) if current.is_none() && !volumes.is_empty() => return Ok(volumes),
            // Broken off by a reader that has failed: its error is about to come.
            Ok(None) => return give_up(current).await,
            Err(cancelled) => Err(cancelled),
        };
        match sent {
            Ok(finished) => volumes.extend(finished),
            Err(error) => {
                abort(current).await;
                return Err(error);
            }
        }
    }
}

async fn send(
    piece: Piece,
    to: &Destination<'_>,
    current: &mut Option<Upload>,
    number: usize,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Option<Volume>, PackError> {
    let begin = || to.storage.upload(&format!("{}/{}", to.folder, super::volume_name(to.name, number)));
    let (bytes, finished) = match piece {
        Piece::Part(bytes) => {
            let (count, upload) = (bytes.len(), current.get_or_insert_with(begin));
            until_cancelled(cancel, upload.part(bytes)).await?;
            (count, None)
        }
        Piece::Last(bytes, volume) => {
            let (count, upload) = (bytes.len(), current.get_or_insert_with(begin));
            until_cancelled(cancel, upload.finish(bytes)).await?;
            *current = None;
            (count, Some(volume))
        }
    };
    meter.add_stored(bytes as u64);
    Ok(finished)
}

async fn until_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, crate::storage::Fault>>,
) -> Result<T, PackError> {
    tokio::select! {
        () = cancel.cancelled() => Err(PackError::Cancelled),
        done = work => Ok(done?),
    }
}

async fn give_up(current: Option<Upload>) -> Result<Vec<Volume>, PackError> {
    abort(current).await;
    std::future::pending().await
}

/// What cannot be removed now is removed by whoever comes next: its journal lies there.
async fn abort(current: Option<Upload>) {
    if let Some(upload) = current
        && let Err(fault) = upload.abort().await
    {
        tracing::warn!(%fault, "parts of an upload that was given up stay until the next attempt");
    }
}
