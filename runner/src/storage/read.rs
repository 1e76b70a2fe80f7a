//! Reads an object of any length as a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use object_store::{GetResult, GetResultPayload};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::StreamReader;

use super::Storage;
use super::fault::Fault;

/// What a file is read in: a read from a share costs a switch of threads.
const FILE_BUFFER: usize = 1 << 20;

type Bodies = StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>;

enum Source {
    File(tokio::fs::File),
    Stream(Bodies),
}

/// The bytes of an object. Its errors carry a [`Fault`], see [`fault_of`].
pub struct Reader {
    source: Source,
    bytes: u64,
}

impl Reader {
    pub(super) fn new(got: GetResult, storage: Storage) -> Self {
        let bytes = got.meta.size;
        let source = match got.payload {
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.set_max_buf_size(FILE_BUFFER);
                Source::File(file)
            }
            GetResultPayload::Stream(stream) => {
                let bodies =
                    stream.map(move |body| body.map_err(|error| io::Error::other(storage.fault(&error))));
                Source::Stream(StreamReader::new(bodies.boxed()))
            }
        };
        Self { source, bytes }
    }

    /// How long the object is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.source {
            Source::File(file) => Pin::new(file).poll_read(cx, buf),
            Source::Stream(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

/// The fault that an error of a [`Reader`] carries; gives the error back when it carries none.
pub fn fault_of(error: io::Error) -> Result<Fault, io::Error> {
    error.downcast::<Fault>()
}
