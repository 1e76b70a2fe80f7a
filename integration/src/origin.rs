//! A small API server: what an agent reaches in its cluster, with the endpoints that
//! stories about the way there want. Its answers are large, slow, endless or missing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::https::acceptor;
use crate::targets::certify;

/// The body of an answer.
type Body = BoxBody<Bytes, std::convert::Infallible>;

/// Bytes of one piece of a bulk answer.
const PIECE: usize = 64 * 1024;

/// Answers at an agent's far end; gone when dropped.
pub struct Origin {
    address: SocketAddr,
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// What came to it.
#[derive(Default)]
struct Seen {
    marks: Mutex<BTreeMap<String, Marked>>,
}

/// What came with one mark.
#[derive(Clone, Copy, Default)]
struct Marked {
    open: usize,
    came: usize,
    bytes: usize,
}

impl Seen {
    fn change(&self, mark: &str, change: impl FnOnce(&mut Marked)) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        change(marks.entry(mark.to_owned()).or_default());
    }

    fn of(&self, mark: &str) -> Marked {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(mark).copied().unwrap_or_default()
    }
}

impl Origin {
    /// Listens on a free port of loopback.
    ///
    /// | request | answer |
    /// | --- | --- |
    /// | `GET /version` | as an API server |
    /// | `GET /bulk?n=N` | N bytes |
    /// | `GET /chatter` | short lines without end, as quickly as they are taken |
    /// | `GET /watch` | a line at once, and ten a second from then on |
    /// | `GET /late?n=MS` | after so many milliseconds |
    /// | `GET /hang` | never |
    /// | `POST /sink` | how many bytes came |
    /// | an upgrade at `/echo` | 101, and then what comes |
    ///
    /// A request is found again by its `mark=`, another part of its query.
    pub async fn start() -> anyhow::Result<Self> {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let folder = tempfile::tempdir()?;
        let ca = certify(folder.path(), &host.to_string())?;
        let acceptor = acceptor(folder.path())?;
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let kubeconfig = kubeconfig(folder.path(), address, &ca)?;
        let seen = Arc::<Seen>::default();
        let task = tokio::spawn(accept(listener, acceptor, seen.clone()));
        Ok(Self { address, folder, kubeconfig, seen, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What an agent needs to reach it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig that leads to `address` instead.
    pub fn kubeconfig_to(&self, address: SocketAddr) -> anyhow::Result<PathBuf> {
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        let file = self.folder.path().join(format!("kubeconfig-{}", address.port()));
        std::fs::write(&file, text.replace(&self.address.to_string(), &address.to_string()))?;
        Ok(file)
    }

    /// Requests with this mark that it is answering now.
    #[must_use]
    pub fn open(&self, mark: &str) -> usize {
        self.seen.of(mark).open
    }

    /// Requests that came with this mark.
    #[must_use]
    pub fn came(&self, mark: &str) -> usize {
        self.seen.of(mark).came
    }

    /// Bytes of answers, or of uploads, with this mark.
    #[must_use]
    pub fn bytes(&self, mark: &str) -> usize {
        self.seen.of(mark).bytes
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn kubeconfig(folder: &Path, address: SocketAddr, ca: &str) -> anyhow::Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{address}"),
            "tls-server-name": address.ip().to_string(),
            "certificate-authority-data": BASE64_STANDARD.encode(ca),
        }}],
        "users": [{"name": "u", "user": { "token": "origin" }}],
    });
    let file = folder.join("kubeconfig");
    std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    Ok(file)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, acceptor, seen).await {
                tracing::debug!(error = format!("{error:#}"), "a connection ended");
            }
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(acceptor.accept(stream).await?);
    let service = service_fn(move |request| answer(request, seen.clone()));
    hyper::server::conn::http1::Builder::new().serve_connection(stream, service).with_upgrades().await?;
    Ok(())
}

/// One request that is being answered; kept by the answer's body.
struct Open {
    seen: Arc<Seen>,
    mark: String,
}

impl Open {
    fn new(seen: Arc<Seen>, request: &Request<Incoming>) -> Self {
        let mark = part(request.uri(), "mark").unwrap_or_default().to_owned();
        seen.change(&mark, |marked| {
            marked.open += 1;
            marked.came += 1;
        });
        Self { seen, mark }
    }

    fn moved(&self, bytes: usize) {
        self.seen.change(&self.mark, |marked| marked.bytes += bytes);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.seen.change(&self.mark, |marked| marked.open -= 1);
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> anyhow::Result<Response<Body>> {
    let open = Open::new(seen, &request);
    let number = part(request.uri(), "n").and_then(|number| number.parse().ok()).unwrap_or(0_u64);
    Ok(match request.uri().path() {
        "/version" => whole(json!({ "gitVersion": "v1.36.0", "major": "1", "minor": "36" })),
        "/bulk" => Response::new(bulk(number as usize, open)),
        "/chatter" => Response::new(endless(Duration::ZERO, open)),
        "/watch" => Response::new(endless(Duration::from_millis(100), open)),
        "/late" => {
            tokio::time::sleep(Duration::from_millis(number)).await;
            whole(json!({ "late": number }))
        }
        "/hang" => std::future::pending().await,
        "/sink" => sink(request.into_body(), &open).await?,
        "/echo" => echo(request, open),
        path => none(path),
    })
}

/// A part of the query.
fn part<'u>(uri: &'u http::Uri, name: &str) -> Option<&'u str> {
    let parts = uri.query().unwrap_or_default().split('&');
    parts.filter_map(|part| part.split_once('=')).find(|part| part.0 == name).map(|part| part.1)
}

fn none(path: &str) -> Response<Body> {
    let mut none = whole(json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "NotFound", "code": 404, "message": format!("no {path}") }));
    *none.status_mut() = StatusCode::NOT_FOUND;
    none
}

fn whole(body: serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn bulk(length: usize, open: Open) -> Body {
    let pieces = stream::unfold((length, open), |(left, open)| async move {
        let piece = left.min(PIECE);
        open.moved(piece);
        let frame = Ok(Frame::data(Bytes::from_static(&[b'x'; PIECE]).slice(..piece)));
        (piece > 0).then_some((frame, (left - piece, open)))
    });
    BodyExt::boxed(StreamBody::new(pieces))
}

fn endless(pause: Duration, open: Open) -> Body {
    let lines = stream::unfold((0_u64, open), move |(number, open)| async move {
        if number > 0 && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let line = Bytes::from(format!("{{\"line\":{number},\"said\":\"something happened\"}}\n"));
        open.moved(line.len());
        Some((Ok(Frame::data(line)), (number + 1, open)))
    });
    BodyExt::boxed(StreamBody::new(lines))
}

async fn sink(mut body: Incoming, open: &Open) -> anyhow::Result<Response<Body>> {
    let mut bytes = 0_usize;
    while let Some(frame) = body.frame().await {
        let length = frame?.data_ref().map_or(0, Bytes::len);
        open.moved(length);
        bytes += length;
    }
    Ok(whole(json!({ "bytes": bytes })))
}

fn echo(request: Request<Incoming>, open: Open) -> Response<Body> {
    tokio::spawn(async move {
        let _open = open;
        // A caller that goes away ends it.
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
    });
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("echo"));
    response
}
